"""Compile a trained version, and prove that the compiled form says what the version's own Python says.

The model is converted to ONNX and compared with itself, asked through :func:`orrery.pipeline.predictor.outputs` as a
server asks it, on untouched rows and on :mod:`hard ones <orrery.training.hard_rows>`. Where the two differ only for
some kind of value (nulls of a column, unseen texts, infinities), such rows are left to the version's own Python; where
they differ otherwise, nothing is compiled. Double precision is tried first.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from orrery.pipeline.predictor import Predictor, method_of
from orrery.pipeline.verdict import GRAPH, VERDICT, Column, Verdict
from orrery.training.convert import convert, ways
from orrery.training.proof import Trial
from orrery.training.refusal import NotConvertible
from orrery.training.sight import sight_of

PATIENCE = 6
"""So many times the processor time after which no attempt is begun may be used."""


def compile_version(artifact: Path, predictor: Predictor, rows: pl.DataFrame, seed: int, seconds: float) -> Verdict:
    """Try to compile a version; writes ``compiled.json`` and, if it was proven, ``compiled.onnx``.

    Parameters
    ----------
    predictor
        The version itself, of its folder `artifact`.
    rows
        Untouched rows, with all columns.
    seconds
        Processor time after which no further attempt is begun; after :data:`PATIENCE` times as much it is given up.
    """
    cpu = time.process_time()
    content = b""
    try:
        with interrupted_after(PATIENCE * seconds):
            content, verdict = _attempts(predictor, rows, seed, cpu + seconds)
    except TimeLimit:
        verdict = Verdict(why=f"it took more than {PATIENCE * seconds:g} s of processor time")
    except NotConvertible as error:
        verdict = Verdict(why=error.what)
    except Exception as error:  # a training that succeeded must not fail by what is only a matter of speed
        verdict = Verdict(why=f"compiling it failed: {type(error).__name__}: {error}")
    verdict = msgspec.structs.replace(verdict, seconds=round(time.process_time() - cpu, 3))
    if not verdict.why:
        (artifact / GRAPH).write_bytes(content)
    (artifact / VERDICT).write_bytes(msgspec.json.format(msgspec.json.encode(verdict), indent=1) + b"\n")
    return verdict


class TimeLimit(BaseException):
    """The processor time is used up; no :class:`Exception`, or a library might take it for a failure of its own."""


@contextlib.contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Interrupt what takes more processor time, such as a library's endless loop.

    Only in a process's main thread, which is where signals arrive.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _attempts(predictor: Predictor, rows: pl.DataFrame, seed: int, deadline: float) -> tuple[bytes, Verdict]:
    """Try one way after the other; the first that is proven."""
    model, method = estimator_of(predictor.model, predictor.manifest.task)
    sight = sight_of(predictor, rows)
    trial = None
    whole_numbers = any(column.kind == "whole" for column in sight.columns)
    reason = ""
    for precision, group in ways(model, method, whole_numbers):
        if time.process_time() > deadline:
            raise NotConvertible(f"there was no time for it{': ' if reason else ''}{reason}")
        columns = [_grouped(column, group) for column in sight.columns]
        try:
            graph = convert(model, method, columns, precision)
            trial = trial or Trial(sight, predictor.manifest, model, graph, seed)
            verdict = trial.prove(graph, columns, precision)
            return graph.content, verdict
        except NotConvertible as error:
            reason = reason or error.what
    raise NotConvertible(reason)


def estimator_of(model: Any, task: str) -> tuple[Any, str]:
    """The estimator that is asked, also where the model is its bound method; and the method."""
    name, call = method_of(model, task)
    if callable(getattr(model, name, None)):
        return model, name
    owner = getattr(call, "__self__", None)
    bound = getattr(call, "__name__", "")
    if owner is not None and bound in ("predict", "predict_proba"):
        return owner, bound
    what = "a function" if not isinstance(model, type) and hasattr(model, "__code__") else f"a {type(model).__name__}"
    raise NotConvertible(f"it is {what}, and only estimators can be converted")


def _grouped(column: Column, group: str) -> Column:
    if column.kind != "whole" or not column.group:
        return column
    return msgspec.structs.replace(column, group=group, nulls=group == "numbers")
