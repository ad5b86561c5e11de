# The verbs of this repository. A fresh clone, Python 3.11 or newer and git are enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Threads of small products of matrices wait busily for each other: several tests at once take turns at the cores instead.
export OPENBLAS_NUM_THREADS ?= 1
.PHONY: demo test test-all test-torch test-ray chaos soak conformance bench bench-serving bench-decisions lint audit fuzz proto docs clean

# What is installed is written down in stamp files, so that a second run begins at once.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit("orrery needs Python 3.11 or newer, and this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@$(BIN)/python -m compileall -q src  # processes start by the hundred, also where Python may not keep what it compiles
	@touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@$(BIN)/python -m compileall -q src
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: $(VENV)/.test
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,bench]'
	@touch $@

demo: $(VENV)/.demo            ## play the main job: a year of flights goes round the loop
	$(BIN)/orrery demo $(ARGS)

lint: $(VENV)/.test            ## style, types, who may import whom, and what is dangerous
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/bandit --quiet --severity-level medium --recursive src 2>$(VENV)/.bandit || { cat $(VENV)/.bandit; exit 1; }

fuzz: $(VENV)/.test            ## requests that nobody would think of, to the API as each role and to git: the large size
	FUZZ=large $(BIN)/pytest --timeout 7200 tests/web/test_web_fuzz.py tests/source/test_source_fuzz.py $(ARGS)

audit: $(VENV)/.test           ## ask the advisory service about what is installed
	$(BIN)/python .ci/audit.py

test: lint                     ## the checks above and the tests that take minutes, not hours
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow and not chaos" $(ARGS)

test-all: lint                 ## every test but those that kill processes
	$(BIN)/pytest -m "not chaos" $(ARGS)

chaos: $(VENV)/.test           ## kill processes at every boundary, and see that nothing is lost
	$(BIN)/pytest -m chaos $(ARGS)

# A stated release of PyTorch: the newest one may bring gigabytes for graphics cards that no test asks.
TORCH ?= torch==2.13.0

.venv-torch/.made: pyproject.toml
	$(PYTHON) -m venv .venv-torch
	.venv-torch/bin/pip install --quiet --disable-pip-version-check --editable '.[torch]' '$(TORCH)' 'pytest-timeout>=2.3,<3'
	@touch $@

test-torch: .venv-torch/.made  ## models of PyTorch, in an environment of their own
	.venv-torch/bin/pytest -m torch --require-stage torch tests/training/test_torch.py tests/acceptance/test_acceptance_torch.py $(ARGS)

.venv-ray/.made: pyproject.toml
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/pip install --quiet --disable-pip-version-check --editable '.[ray]' 'hypothesis>=6.100,<7' 'pytest-timeout>=2.3,<3'
	@touch $@

test-ray: .venv-ray/.made      ## a real Ray cluster on this machine, in an environment of its own
	.venv-ray/bin/pytest -m ray --require-stage ray tests/actions/test_actions_ray.py $(ARGS)

conformance: $(VENV)/.test     ## public clients, MLflow's own server and damaged requests against the inference server
	$(BIN)/pytest tests/serving/test_conformance_triton.py tests/serving/test_conformance_mlflow.py tests/serving/test_serving_fuzz.py \
		tests/serving/test_serving_door.py tests/serving/test_serving_protocols.py $(ARGS)

soak: $(VENV)/.test            ## ten minutes of load, moves and kills; the verdict goes to benchmarks/results
	cd tests && ../$(BIN)/python -m acceptance.soak --write $(ARGS)

bench: $(VENV)/.bench          ## measure; results go to benchmarks/results
	@for script in benchmarks/*.py; do echo "$$script"; $(BIN)/python "$$script" || exit 1; done

proto: $(VENV)/.test           ## write the descriptors of gRPC's messages from their .proto
	$(BIN)/python -m grpc_tools.protoc -I src/orrery/serving \
		--descriptor_set_out=src/orrery/serving/inference.binpb src/orrery/serving/inference.proto

bench-serving: $(VENV)/.test   ## orrery's inference server beside its peers, each in a venv of its own; about 90 minutes
	$(BIN)/python benchmarks/serving --write $(ARGS)

bench-decisions: $(VENV)/.test ## detection, drift, promotion, retraining, windows, and what a look costs, beside peers; about an hour
	$(BIN)/python benchmarks/decisions --write $(ARGS)

docs: $(VENV)/.test            ## write the reference from the code
	$(BIN)/python docs/reference/make.py

clean:                         ## remove what was installed
	rm -rf $(VENV) .venv-torch .venv-ray
