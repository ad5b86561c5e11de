"""Running steps: look each key up, run what is not there, load only what somebody reads."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from orrery.errors import Damaged, NotFound, NotUnderstood, OrreryError, ProjectFailed
from orrery.pipeline.cache import Cache, Record
from orrery.pipeline.checkout import describe
from orrery.pipeline.content import file_digest, files_named, told
from orrery.pipeline.keys import ProjectCode
from orrery.pipeline.reasons import why
from orrery.pipeline.steps import Step
from orrery.pipeline.values import Encoded, decode, digest, encode, own_copy


@dataclass(frozen=True)
class Input:
    """A dataset, column or other value from outside the pipeline."""

    value: Any
    """The value, or a function without arguments that loads it; it is called only if a step that reads it runs."""
    key: str
    """Its version (``v3``): another key is another input, the same key is the same. Never a path."""


@dataclass(frozen=True)
class StepReport:
    """What became of one step in a run."""

    name: str
    key: str
    """Digest of all that the result depends on; empty if that could not be determined."""
    cached: bool
    reason: str
    """Why it ran, or ``cached``."""
    seconds: float
    """Wall-clock seconds in this run."""
    cpu_seconds: float
    """Seconds of processor time in this run, over all threads of the process."""
    output_digest: str
    """Digest of the result; empty if the result cannot be stored."""
    inputs: Mapping[str, str]
    """Lineage: each input's version, and the output digest of each step, that it was made from."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The values that its parameters had."""
    warnings: tuple[str, ...] = ()
    """What could change the result unseen, in words."""


@dataclass(frozen=True)
class RunResult:
    """The end of a run."""

    values: Mapping[str, Any]
    """Value of each target."""
    reports: list[StepReport]
    """One for each step that a target needs, in the order of running."""


class _Again(Exception):
    """A cached value turned out to be lost when it was read; plan again without it."""


@dataclass
class Execution:
    """One run. Made and used by :meth:`orrery.pipeline.pipeline.Pipeline.run`; the checkout must be active."""

    code: ProjectCode
    steps: Sequence[Step]
    """The steps to make, in order."""
    targets: Sequence[str]
    inputs: Mapping[str, Input]
    parameters: Mapping[str, Any]
    cache: Cache
    environment: str
    on_step: Callable[[StepReport], None] | None

    def __post_init__(self) -> None:
        self._latest = self.cache.latest()
        self._made_of: dict[str, dict[str, str]] = {}
        self._lost: dict[str, str] = {}
        self._unusable: set[str] = set()
        self._values: dict[str, Any] = {}
        self._records: dict[str, Record] = {}
        self._reports: dict[str, StepReport] = {}
        self._ran: dict[str, StepReport] = {}
        self._readers: dict[str, int] = {}
        self._names = {step.name: place for place, step in enumerate(self.steps)}

    def run(self) -> RunResult:
        """Make the targets."""
        try:
            while True:
                try:
                    values = self._attempt()
                    break
                except _Again:
                    continue  # one entry fewer each time
        finally:
            self._remember()
        return RunResult(values, [self._reports[name] for name in self._names])

    def _attempt(self) -> dict[str, Any]:
        self._readers = {name: self.targets.count(name) for step in self.steps for name in (step.name, *step.needs)}
        for step in self.steps:
            for name in step.needs:
                self._readers[name] += 1
        for step in self.steps:
            if step.name not in self._reports:
                report = self._make(step)
                if report.cached and step.name in self._ran and self._ran[step.name].key == report.key:
                    report = self._ran[step.name]  # it ran in an earlier attempt of this same run
                elif self.on_step is not None:
                    self.on_step(report)
                self._reports[step.name] = report
                if not report.cached:
                    self._ran[step.name] = report
            for name in step.needs:
                self._readers[name] -= 1
                if not self._readers[name]:
                    self._values.pop(name, None)
        return {name: self._read(name) for name in self.targets}

    def _make(self, step: Step) -> StepReport:
        """Find a step's result, or run it."""
        wall, cpu = time.perf_counter(), time.process_time()
        key, obstacle, found = "", "", None
        reach = self.code.reach(step.function, step=True)
        try:
            parts = self._parts(step)
        except NotUnderstood as error:
            parts, obstacle = {}, error.what
        else:
            key = digest(step.name, *(text for part in sorted(parts.items()) for text in part))
            self._made_of[step.name] = parts
            found = self._find(step, key)
        if found is not None:
            self._records[step.name] = found
            output, reason, warnings = found.output, "cached", found.warnings
        else:
            reason = self._lost.get(step.name) or why(step.name, self._latest.get(step.name), parts)
            if obstacle:
                reason = f"not cached: {obstacle}"
            warnings = tuple(sorted(reach.warnings))
            output, problem = self._execute(step, key, parts, warnings)
            if problem and not obstacle:
                reason = f"{reason}; not cached: {problem}"
        return StepReport(
            name=step.name,
            key=key,
            cached=found is not None,
            reason=reason,
            seconds=time.perf_counter() - wall,
            cpu_seconds=time.process_time() - cpu,
            output_digest=output,
            inputs=MappingProxyType({name: self._version(name) for name in step.needs}),
            parameters=MappingProxyType(self._arguments(step)),
            warnings=warnings,
        )

    def _version(self, name: str) -> str:
        return self._reports[name].output_digest if name in self._names else self.inputs[name].key

    def _arguments(self, step: Step) -> dict[str, Any]:
        return {name: self.parameters.get(name, default) for name, default in step.parameters.items()}

    def _parts(self, step: Step) -> dict[str, str]:
        parts = self.code.parts(self.code.reach(step.function, step=True))
        parts["environment"] = self.environment
        for name, value in self._arguments(step).items():
            parts[f"parameter {name}"] = told(value, self.code)
        for name in step.needs:
            if name in self._names:
                output = self._reports[name].output_digest
                if not output:
                    raise NotUnderstood(f"its input {name} cannot be stored")
                parts[f"input {name}"] = output
            else:
                given = self.inputs[name]
                parts[f"dataset {name}"] = " ".join((given.key, *files_named(given.value).values()))
        return parts

    def _find(self, step: Step, key: str) -> Record | None:
        if key in self._unusable:
            return None
        try:
            found = self.cache.find(key)
        except Damaged:
            self._lost[step.name] = "its cached result was damaged"
            return None
        for path, content in found.files.items() if found else ():
            if file_digest(path) != content:
                self._lost[step.name] = f"the file that it wrote has changed: {path}"
                return None
        return found

    def _execute(self, step: Step, key: str, parts: Mapping[str, str], warnings: tuple[str, ...]) -> tuple[str, str]:
        """Run a step; gives the digest of its result (empty if it has none) and why it could not be stored."""
        arguments = {name: self._read(name) for name in step.needs} | self._arguments(step)
        ordered = [arguments.pop(name) for name in step.positional]
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            value = step.function(*ordered, **arguments)
        except OrreryError:
            raise
        except (Exception, SystemExit) as error:
            raise ProjectFailed(
                f"The step {step.name} failed: {describe(error, self.code.checkout.root)}",
                safe="The results of the steps before it are kept.",
                todo="Mend it and run again; only what is not done yet will run.",
            ) from error
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        self._values[step.name] = value
        try:
            encoded = encode(value, self.code)
        except NotUnderstood as error:
            return "", error.what
        if encoded.kind == "lazyframe":
            # What was written is computed; its readers need not compute it again.
            self._values[step.name] = decode(encoded.kind, encoded.data, self.code)
        files = files_named(value)
        output = digest(encoded.digest, *files.values()) if files else encoded.digest
        if not key:
            return output, ""
        problem = self._changed_meanwhile(step, parts)
        if not problem:
            record = Record(
                key=key,
                step=step.name,
                output=output,
                value=encoded.digest,
                kind=encoded.kind,
                warnings=warnings,
                files=files,
                seconds=seconds,
                cpu_seconds=cpu_seconds,
            )
            problem = self._store(record, encoded)
        return output, problem

    def _changed_meanwhile(self, step: Step, parts: Mapping[str, str]) -> str:
        try:
            after = self._parts(step)
        except NotUnderstood as error:
            return error.what
        changed = [part for part in {**parts, **after} if after.get(part) != parts.get(part)]
        return f"{', '.join(changed)} changed while it ran" if changed else ""

    def _store(self, record: Record, encoded: Encoded) -> str:
        try:
            self._records[record.step] = self.cache.store(record, encoded)
        except OSError as error:
            # A full disk costs time later, not the training now.
            return f"the cache cannot be written ({os.strerror(error.errno or 0)})"
        return ""

    def _read(self, name: str) -> Any:
        """A value for one reader: its own copy while others still need it."""
        if name not in self._values:
            self._values[name] = self._load(name)
        last = self._readers[name] == 1
        given = name in self.inputs and not callable(self.inputs[name].value)
        return self._values[name] if last and not given else own_copy(self._values[name])

    def _load(self, name: str) -> Any:
        if name in self.inputs:
            value = self.inputs[name].value
            return value() if callable(value) else value
        record = self._records.pop(name, None)
        if record is not None:
            try:
                value = self.cache.load(record, self.code)
            except NotFound:
                self._lost[name] = "its cached result is gone"
            except Damaged as error:
                self._lost[name] = f"its cached result could not be used: {error.what}"
            else:
                self._records[name] = record
                return value
            self.cache.forget(record)
            self._unusable.add(record.key)  # also when it cannot be removed
        # It will be computed again, perhaps to another result: nothing that was decided after it stands.
        for later in list(self._names)[self._names[name] :]:
            self._reports.pop(later, None)
            self._values.pop(later, None)
        raise _Again

    def _remember(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: the next run words its reasons worse
            self.cache.remember(self._made_of)
