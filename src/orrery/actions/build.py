"""Build and test a commit."""

from __future__ import annotations

from threading import Thread

from orrery.actions.desk import Desk, limits_of
from orrery.build.suite import run_tests
from orrery.errors import ProjectFailed
from orrery.timeline.event import Draft
from orrery.timeline.state import ModelState
from orrery.workers.action import Action


def build(desk: Desk, model: ModelState, action: Action) -> list[Draft]:
    """Lock the environment of a commit."""
    Thread(target=_import_registry, name="imports", daemon=True).start()
    commit = action.args["commit"]
    environment = desk.environment(model.name, model.spec_of(commit), commit)
    how = "cached" if environment.cached else f"{environment.seconds:.1f} s"
    return [
        Draft(
            id=action.event_id(),
            kind="built",
            actor="orrery/build",
            why=f"The environment is locked: {environment.packages} packages, {how}.",
            model=model.name,
            data={
                "commit": commit,
                "lock": environment.frozen,
                "python": str(environment.python),
                "packages": environment.packages,
                "seconds": round(environment.seconds, 3),
                "cached": environment.cached,
                "contained": environment.contained or desk.contained(),
            },
        )
    ]


def test(desk: Desk, model: ModelState, action: Action) -> list[Draft]:
    """Run the project's tests in an environment."""
    commit = action.args["commit"]
    spec = model.spec_of(commit)
    checkout = desk.checkout(model.name, commit)
    environment = desk.environment(model.name, spec, commit)
    limits, network = limits_of(spec, spec.resources.tests_wall), "tests" in spec.resources.network
    report = run_tests(
        checkout,
        environment,
        limits,
        action.environment,
        warm=desk.warm,
        secrets=desk.secrets(model.name, spec, "tests"),
        redaction=desk.redaction(model.name),
        walling=desk.walling,
        network=network,
    )
    if not report.ok:
        raise ProjectFailed(report.reason, output=report.output)
    words = f"{report.passed} passed, {report.seconds:.1f} s" if report.passed else report.reason
    return [
        Draft(
            id=action.event_id(),
            kind="tested",
            actor="orrery/build",
            why=f"Tests: {words}.",
            model=model.name,
            environment=action.environment,
            data={
                "commit": commit,
                "passed": report.passed,
                "seconds": round(report.seconds, 3),
                "output": report.output[-4000:],
                "contained": desk.contained(network),
            },
        )
    ]


def _import_registry() -> None:
    """Import what registers versions, which takes seconds, beside the build: what is built is about to be trained."""
    from orrery.registry import database, store, versions  # noqa: F401
