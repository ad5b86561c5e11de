"""One training, in the project's environment: ``python -m orrery.training.runner JOB.json``.

Trains the *probe* without the untouched rows and the *final* model with them, and leaves in the job's folder
``artifact/``, ``holdout.parquet``, ``probe_output.npy`` and ``result.json``. Whatever the project's code does wrong
ends as a result with ``ok`` false and exit code 1.
"""

from __future__ import annotations

import os
import random
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from orrery.errors import NotUnderstood, OrreryError, ProjectFailed
from orrery.pipeline.artifact import SAMPLE_ROWS, Fitted, Manifest, write_artifact, write_score
from orrery.pipeline.cache import Cache
from orrery.pipeline.checkout import checkout_of, load_module
from orrery.pipeline.execution import Input, StepReport
from orrery.pipeline.loaded import note
from orrery.pipeline.pipeline import Pipeline
from orrery.pipeline.predictor import Predictor, method_of
from orrery.pipeline.serving_plan import ServingPlan, features_of, plan_serving, upstream
from orrery.spec import from_dict
from orrery.training.outcome import losses, own_means, row_wise
from orrery.training.split import event_times, recent, split
from orrery.types import digest, format_instant

UNFINISHED = {"served": "python", "sentence": "Served by its own Python: compiling it did not come to an end."}
COMPILE_SECONDS = 10.0
"""After so much processor time no further way of compiling is tried."""


class Dataset(msgspec.Struct, frozen=True):
    """A dataset of a job."""

    path: str
    """Parquet or Arrow IPC file."""
    key: str
    """Its version: the same key is the same rows."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to train."""

    checkout: str
    spec: dict[str, Any]
    datasets: dict[str, Dataset]
    """Argument of the pipeline to dataset."""
    out: str
    cache: str
    environment: str = ""
    """Digest of the library versions."""
    params: dict[str, Any] = {}
    change: str = ""
    commit: str = ""
    window: str = "0s"
    """Only rows this recent by event time; ``all`` or ``0s``: every row."""
    seed: int = 0
    sample: float = 1.0
    """Share of the rows to train on: below 1 it is a probe, of which only what it says is wanted."""
    refit: bool = True
    """Train again with the untouched rows, after those were held out; else what is judged is what is released."""


def main(argv: list[str]) -> int:
    """Train; returns 0, or 1 where the result says why not."""
    job = msgspec.json.decode(Path(argv[0]).read_bytes(), type=Job)
    out = Path(job.out)
    out.mkdir(parents=True, exist_ok=True)
    training = Training(job)
    try:
        result = training.run()
    except (Exception, pl.exceptions.PanicException) as error:
        # Any error of the project's code, at any place, must end as a result: this is where they all arrive.
        result = {"ok": False, "error": training.told(error)}
        print(f"failed        {result['error']['message']}", flush=True)
    result |= {"steps": training.steps, "warnings": list(dict.fromkeys(training.warnings))}
    _write(out, result | {"compiled": UNFINISHED}, training.began)
    if result["ok"] and job.sample == 1.0:  # from here on, whatever ends this process takes nothing away but speed
        _write(out, result | {"compiled": training.compiled()}, training.began)
        note()
    return 0 if result["ok"] else 1


def _write(out: Path, result: dict[str, Any], began: float) -> None:
    used = os.times()
    result["seconds"] = time.perf_counter() - began
    result["cpu_seconds"] = used.user + used.system + used.children_user + used.children_system
    temporary = out / "result.json.new"
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
    temporary.replace(out / "result.json")


@dataclass(frozen=True)
class Source:
    """The dataset with the target, read."""

    argument: str
    frame: pl.DataFrame
    key: str


class Training:
    """One job, while it runs."""

    def __init__(self, job: Job) -> None:
        self.began = time.perf_counter()
        self.steps: list[dict[str, Any]] = []
        """Report of each step, with ``run`` = probe or final."""
        self.warnings: list[str] = []
        self._job = job
        self._place = "preparation"
        random.seed(job.seed)
        np.random.seed(job.seed % 2**32)

    def run(self) -> dict[str, Any]:
        """Do it all; raises what goes wrong."""
        job, out = self._job, Path(self._job.out)
        spec = from_dict(job.spec)
        self._spec = spec
        self._place = "import"
        module = load_module(Path(job.checkout), spec.pipeline.module)
        checkout = checkout_of(module)
        self._pipeline = Pipeline(module, [*spec.data, spec.model.target])
        self._place = "data"
        source = self._source()
        labelled = self._labelled(source.frame)
        train, holdout = split(labelled, spec)
        classes = self._classes(labelled)
        learned = recent(train, spec, job.window)
        if job.sample < 1.0:
            learned = learned.sample(fraction=job.sample, seed=job.seed)
        probe, plan = self._train("probe", source, learned, None)
        rows = recent(labelled if job.refit else train, spec, job.window)
        final = self._train("final", source, rows, plan)[0] if job.refit else probe

        self._place = "outcome"
        manifest = self._manifest(source, rows, classes, plan)
        sample = self._without_target(holdout if holdout.height >= SAMPLE_ROWS else labelled, plan.features, source)
        write_artifact(out / "artifact", manifest, checkout, final, probe, sample)
        holdout.write_parquet(out / "holdout.parquet")
        judged = self._judge(out, manifest, holdout)
        if job.sample == 1.0:
            self._learn_score(out / "artifact", learned, holdout)
        return judged | {
            "rows": rows.height,
            "probe_rows": learned.height,
            "holdout_rows": holdout.height,
            "trained_until": manifest.trained_until,
            "params": {name: value for step in self.steps for name, value in step["parameters"].items()},
        }

    def _learn_score(self, artifact: Path, learned: pl.DataFrame, untouched: pl.DataFrame) -> None:
        """Learn to tell strange requests, and keep it with the version."""
        from orrery.training.usual import learn_score

        self._place = "anomaly score"
        score = learn_score(self._final[0], learned, untouched)
        if score is not None:
            write_score(artifact, score)

    def compiled(self) -> dict[str, Any]:
        """Compile what was trained; what became of it, as the timeline keeps it."""
        from orrery.training.compile import compile_version

        final, holdout = self._final
        verdict = compile_version(Path(self._job.out) / "artifact", final, holdout, self._job.seed, COMPILE_SECONDS)
        print(f"compiled      {verdict.sentence()} ({verdict.seconds:.1f} s)", flush=True)
        return verdict.as_fact()

    def _labelled(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows that have the target."""
        target = pl.col(self._spec.model.target)
        known = target.is_not_null()
        if frame.schema[self._spec.model.target].is_float():
            known = known & target.is_not_nan()
        labelled = frame.filter(known)
        dropped = frame.height - labelled.height
        if dropped:
            name = self._spec.model.target
            self.warnings.append(f"{dropped} of {frame.height} rows have no {name} and were left out.")
        return labelled

    def _manifest(self, source: Source, rows: pl.DataFrame, classes: tuple[Any, ...], plan: ServingPlan) -> Manifest:
        spec, model = self._spec, self._spec.model
        until = event_times(rows, spec).max() if model.time else None
        return Manifest(
            model=model.name,
            task=model.task,
            target=model.target,
            entity=model.entity,
            time=model.time,
            classes=classes,
            rows_input=source.argument,
            dataset=spec.data[source.argument],
            columns={name: str(kind) for name, kind in rows.schema.items() if name != model.target},
            module=spec.pipeline.module,
            step=spec.pipeline.model,
            inputs=self._pipeline.inputs,
            features=plan.features,
            live=plan.live,
            kept=plan.kept,
            params=self._params(),
            commit=self._job.commit,
            change=self._job.change,
            trained_until=format_instant(until) if isinstance(until, datetime) else None,
            rows=rows.height,
        )

    def _judge(self, out: Path, manifest: Manifest, holdout: pl.DataFrame) -> dict[str, Any]:
        """Load the version as a server will, and ask it."""
        self._place = "prediction"
        final = Predictor.load(out / "artifact", "model")
        final.predict(holdout.head(SAMPLE_ROWS))
        self._final = final, holdout
        predictor = Predictor.load(out / "artifact", "probe")
        output = predictor.predict(holdout)
        np.save(out / "probe_output.npy", output)
        consistency = row_wise(predictor, holdout)
        self.warnings += consistency.pop("warnings")
        metrics = losses(manifest, output, holdout.get_column(manifest.target))
        metrics |= own_means(predictor, self._spec, output, holdout.get_column(manifest.target))
        said = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"judged        {said} on {holdout.height} untouched rows", flush=True)
        return {"ok": True, "metrics": metrics, "consistency": consistency, "error": None}

    def _params(self) -> dict[str, Any]:
        return {**self._spec.pipeline.params, **self._job.params}

    def _source(self) -> Source:
        """Find and read the dataset with the target."""
        target = self._spec.model.target
        found = []
        for argument, dataset in self._job.datasets.items():
            frame = _read(dataset.path)
            if target in frame.columns:
                found.append(Source(argument, frame, dataset.key))
        if len(found) != 1:
            names, all_names = ", ".join(each.argument for each in found) or "none", ", ".join(self._job.datasets)
            raise NotUnderstood(
                f"The target {target} must be a column of one dataset; it is in {names} of {all_names}.",
                todo="Name the column in [model] target as the dataset does.",
            )
        return found[0]

    def _without_target(self, frame: pl.DataFrame, features: str, source: Source) -> pl.DataFrame:
        """A model that takes the dataset itself must not find its target there."""
        return frame.drop(self._spec.model.target) if features == source.argument else frame

    def _classes(self, labelled: pl.DataFrame) -> tuple[Any, ...]:
        spec = self._spec
        target = labelled.get_column(spec.model.target)
        if spec.model.task == "regression":
            if not target.dtype.is_numeric():
                raise NotUnderstood(f"A regression needs numbers; {spec.model.target} holds {target.dtype}.")
            return ()
        classes = tuple(target.cast(pl.String).unique().sort() if _is_category(target) else target.unique().sort())
        if not isinstance(next(iter(classes), 0), bool | int | float | str):
            raise NotUnderstood(f"{spec.model.target} holds {target.dtype}, which cannot be classes.")
        if len(classes) < 2 or (spec.model.task == "binary" and len(classes) > 2):
            shown = ", ".join(repr(each) for each in classes[:5])
            raise NotUnderstood(
                f"A {spec.model.task} model cannot be learnt from {len(classes)} different values of "
                f"{spec.model.target}: {shown}{', ...' if len(classes) > 5 else ''}."
            )
        return classes

    def _train(
        self, run: str, source: Source, rows: pl.DataFrame, plan: ServingPlan | None
    ) -> tuple[Fitted, ServingPlan]:
        """Run the pipeline on some rows; what it gave, and how requests will be served (as `plan` says, if given)."""
        self._place = f"{run} training"
        spec, job = self._spec, self._job
        steps = {step.name: step for step in self._pipeline.describe()}
        name = spec.pipeline.model
        self._pipeline.needs(name)  # says which steps there are, if not this one
        features = features_of(steps[name], spec.model.target)
        keep = spec.pipeline.keep
        for step in keep:
            if step not in steps:
                raise NotUnderstood(f"[pipeline] keep names {step}, and there is no such step.")
        given = rows
        if spec.model.target in steps[name].needs:
            given = self._without_target(rows, features, source)
        # Which rows these are follows from the dataset's version and the rules that chose them.
        model, words = spec.model, f"without {spec.gates.holdout}" if run == "probe" else "all"
        rules = [words, model.target, model.time, model.entity, job.window, str(features == source.argument)]
        rules += [f"{job.sample:g} by {job.seed}"] if job.sample < 1.0 else []
        key = f"{source.key} {words} {digest([source.key, *rules])[:8]}"
        inputs = {argument: Input(_reader(dataset.path), dataset.key) for argument, dataset in job.datasets.items()}
        inputs[source.argument] = Input(given, key)
        inputs[model.target] = Input(rows.get_column(model.target), f"{key}:{model.target}")
        path = upstream(features, steps)
        result = self._pipeline.run(
            [name, *(step for step in path if step != name)],
            inputs,
            self._params(),
            Cache(Path(job.cache), f"{model.name}-{run}"),
            job.environment,
            lambda report: self._report(run, report),
        )
        values = dict(result.values)
        plan = plan or plan_serving(
            features, steps, source.argument, model.target, keep, lambda step: _per_row(values.get(step), rows.height)
        )
        method_of(values[name], model.task)
        kept = {each: values[each] if each in values else _read(job.datasets[each].path) for each in plan.kept}
        return Fitted(values[name], kept), plan

    def _report(self, run: str, report: StepReport) -> None:
        fields: dict[str, Any] = {name: getattr(report, name) for name in StepReport.__dataclass_fields__}
        fields |= {"run": run, "inputs": dict(report.inputs), "parameters": _plain(report.parameters)}
        self.steps.append(fields)
        self.warnings += report.warnings
        took = "cached" if report.cached else f"{report.seconds:.1f} s  ({report.reason})"
        print(f"{run:<6} {report.name:<20} {took}", flush=True)

    def told(self, error: BaseException) -> dict[str, Any]:
        """Say an error in words: where, what, and the last lines of the project's own code."""
        cause = error.__cause__ if isinstance(error, OrreryError) and error.__cause__ is not None else error
        roots = [Path(self._job.checkout).resolve(), Path(self._job.out).resolve() / "artifact" / "code"]
        lines = [
            f"{Path(frame.filename).relative_to(root)}, line {frame.lineno}, in {frame.name}: {frame.line}"
            for frame in traceback.extract_tb(cause.__traceback__)
            for root in roots
            if Path(frame.filename).is_relative_to(root)
        ]
        known = isinstance(error, OrreryError)
        message = str(error) if known else f"{type(error).__name__} during {self._place}: {error}"
        if not known:  # not the project's fault, as far as can be told: whoever mends orrery wants it whole
            traceback.print_exception(error)
        return {
            "step": self._failed_step(error),
            "type": type(cause).__name__,
            "kind": "project" if isinstance(error, ProjectFailed) else "input" if known else "internal",
            "message": message,
            "traceback": lines[-8:],
        }

    def _failed_step(self, error: BaseException) -> str:
        words = str(error).split()
        if isinstance(error, ProjectFailed) and words[:2] == ["The", "step"] and len(words) > 2:
            return words[2]
        return self._place


def _reader(path: str) -> Any:
    return lambda: _read(path)


def _read(path: str) -> pl.DataFrame:
    try:
        if path.endswith((".arrow", ".ipc", ".feather")):
            return pl.read_ipc(path)
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise NotUnderstood(f"The data in {Path(path).name} cannot be read: {error}") from error


def _is_category(target: pl.Series) -> bool:
    return isinstance(target.dtype, pl.Categorical | pl.Enum)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON can carry them."""
    return {
        name: value if isinstance(value, str | int | float | bool | type(None) | list | dict) else repr(value)
        for name, value in values.items()
    }


def _per_row(value: Any, rows: int) -> bool | None:
    """True for a table with one row for each of `rows`, False for another table, None for anything else."""
    if isinstance(value, pl.LazyFrame):
        return bool(value.select(pl.len()).collect().item() == rows)
    if isinstance(value, pl.DataFrame | pl.Series):
        return bool(value.len() == rows) if isinstance(value, pl.Series) else value.height == rows
    shape = getattr(value, "shape", None)  # arrays, pandas frames, sparse matrices
    if isinstance(shape, tuple) and shape:
        return bool(shape[0] == rows)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
