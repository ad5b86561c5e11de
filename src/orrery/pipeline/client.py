"""Asking a version that runs in a process of its own, so that its code can break nothing here."""

from __future__ import annotations

import contextlib
import os
import select
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any, Protocol, Self

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from orrery.errors import NotAllowed, ProjectFailed
from orrery.pipeline.host import LENGTH_BYTES
from orrery.pipeline.rows import RowRefused

Floats = npt.NDArray[np.float64]
_TAIL_BYTES = 1000
"""So much of what the process printed last is told when it dies."""


class Ended(Protocol):
    """How a program ended."""

    @property
    def reason(self) -> str:
        """Why, as the end of a sentence: "used more than 2.0 GB of memory"; empty if it ended by itself and well."""


class Running(Protocol):
    """A running program, as :func:`orrery.workers.contained.spawn` gives it: with pipes, and held to its limits."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None

    def wait(self, timeout: float | None = None) -> Ended | None:
        """Wait until it ends, at most so many seconds; None if it still runs then."""

    def kill(self) -> object:
        """End it and all that descends from it."""


class ProjectProcess:
    """A process with a project's code and the channel to it. Not for several threads at once.

    Parameters
    ----------
    launch
        Starts the program with pipes as standard input and output; it is given the file for standard error.
    start_timeout, timeout
        Seconds until it must be ready, and until an answer must be there; then it is killed.

    Raises
    ------
    ProjectFailed
        When entered, if the version cannot be loaded, or the process dies or is late.
    """

    def __init__(
        self,
        launch: Callable[[IO[bytes]], Running],
        *,
        start_timeout: float = 120.0,
        timeout: float = 60.0,
    ) -> None:
        self._launch = launch
        self._start_timeout, self._timeout = start_timeout, timeout
        self._process: Running | None = None
        self._number = 0
        self.seconds = 0.0
        """How long loading took."""
        self.cpu_seconds = 0.0
        """Processor time of the last answer, which says more of the model than of the machine's other work."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the process and wait until it is ready; raises ProjectFailed if it does not come to it."""
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = self._launch(self._printed)
        try:
            first = self._read(time.monotonic() + self._start_timeout, "load")
        except BaseException:
            self.close()
            raise
        if "error" in first:
            self.close()
            raise ProjectFailed(f"The model cannot be served: {first['error']['what']}")
        self.seconds = first["seconds"]
        self._ready(first)

    def _ready(self, first: dict[str, Any]) -> None:
        """Take what the process said when it was ready."""

    @property
    def alive(self) -> bool:
        """Whether it runs, as far as can be seen without asking it."""
        return self._process is not None and self._process.wait(0.0) is None

    def _asked(self, **given: Any) -> dict[str, Any]:
        self._number += 1
        self._write(msgspec.msgpack.encode({"id": self._number, **given}))
        answer = self._read(time.monotonic() + self._timeout, "answer")
        if "error" in answer:
            error = answer["error"]
            if error["kind"] == "rows":
                raise RowRefused(error["what"], column=error["column"], row=error["row"])
            raise (NotAllowed if error["kind"] == "absent" else ProjectFailed)(error["what"])
        self.cpu_seconds = float(answer.get("cpu", 0.0))
        return answer

    def kill(self) -> None:
        """End the process at once, from any thread; who waits for its answer gets ProjectFailed."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the process; without effect if it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        for channel in (process.stdin, process.stdout):
            if channel is not None:
                with contextlib.suppress(BrokenPipeError):
                    channel.close()
        if process.wait(timeout=2) is None:
            process.kill()
        self._printed.close()

    def _running(self) -> Running:
        if self._process is None:
            raise ProjectFailed("The model's process has ended.", todo="Start another one.")
        return self._process

    def _write(self, body: bytes) -> None:
        channel = self._running().stdin
        assert channel is not None
        view = memoryview(len(body).to_bytes(LENGTH_BYTES, "little") + body)
        try:
            while view:
                view = view[os.write(channel.fileno(), view) :]
        except BrokenPipeError:
            raise self._died() from None

    def _read(self, deadline: float, task: str) -> dict[str, Any]:
        size = int.from_bytes(self._bytes(LENGTH_BYTES, deadline, task), "little")
        message: dict[str, Any] = msgspec.msgpack.decode(self._bytes(size, deadline, task))
        return message

    def _bytes(self, count: int, deadline: float, task: str) -> bytes:
        process = self._running()
        assert process.stdout is not None
        found = bytearray()
        while len(found) < count:
            ready, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                limit = self._start_timeout if task == "load" else self._timeout
                process.kill()
                self.close()
                raise ProjectFailed(f"The model's process did not {task} within {limit:g} s and was ended.")
            part = os.read(process.stdout.fileno(), count - len(found))
            if not part:
                raise self._died()
            found += part
        return bytes(found)

    def _died(self) -> ProjectFailed:
        """Say how the process ended, with what it printed last."""
        process = self._running()
        ended = process.wait(timeout=5)
        if ended is None:
            process.kill()
        how = (ended.reason or "ended with exit code 0") if ended else "closed its channel and was ended"
        self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(self._printed.tell() - _TAIL_BYTES, 0))
        lines = self._printed.read().decode(errors="replace").strip().splitlines()
        self.close()
        said = f" It printed last: {lines[-1]}" if lines else ""
        return ProjectFailed(f"The model's process {how} instead of answering.{said}")


class ModelProcess(ProjectProcess):
    """A process that has a version and answers for it: ``[python, "-m", "orrery.pipeline.host", artifact]``."""

    columns: Mapping[str, str] = MappingProxyType({})
    """Columns that the version accepts and their types, known once it is ready."""
    missing: tuple[str, ...] = ()
    """Columns that the last request lacked."""
    extra: tuple[str, ...] = ()
    """Columns of the last request that were ignored."""

    def _ready(self, first: dict[str, Any]) -> None:
        self.columns = first["columns"]

    def predict(self, frame: pl.DataFrame) -> npt.NDArray[np.float64]:
        """Predict for a frame; shapes and errors are those of :meth:`orrery.pipeline.predictor.Predictor.predict`.

        Raises
        ------
        RowRefused
            If a value does not fit its column.
        ProjectFailed
            If the model's code fails, is too slow, or takes the process with it.
        """
        answer = self._ask("predict", frame)
        output = np.frombuffer(answer["output"], dtype="<f8")
        return output.reshape(frame.height, answer["width"])

    def explain(self, frame: pl.DataFrame) -> dict[str, Any]:
        """Explain a few rows; fields are those of :class:`orrery.pipeline.explain.Explanation`.

        Raises
        ------
        NotAllowed
            If a package that it takes is not installed beside the model.
        RowRefused, ProjectFailed
            As :meth:`predict`.
        """
        explanation: dict[str, Any] = self._ask("explain", frame)["explanation"]
        return explanation

    def time(self, columns: Mapping[str, Sequence[Any]], count: int) -> tuple[float, bool]:
        """Have a request answered as the inference server has it answered.

        Parameters
        ----------
        columns
            Plain values as JSON brings them, by column; `count` of each.

        Returns
        -------
        float
            Seconds of processor time.
        bool
            Whether the version's compiled form answered; else its own Python did.

        Raises
        ------
        RowRefused, ProjectFailed
            As :meth:`predict`.
        """
        answer = self._told("time", columns=columns, n=count)
        return float(answer["seconds"]), bool(answer["compiled"])

    def load(self, artifact: Path | str, which: str = "model") -> None:
        """Answer for another version from now on; it must have been built in the same environment.

        Raises
        ------
        ProjectFailed
            If it cannot be loaded; the process then answers for the version before.
        """
        self._number += 1
        request = {"id": self._number, "op": "load", "artifact": str(artifact), "which": which}
        self._write(msgspec.msgpack.encode(request))
        answer = self._read(time.monotonic() + self._start_timeout, "load")
        if "error" in answer:
            raise ProjectFailed(f"The model cannot be loaded: {answer['error']['what']}")

    def _ask(self, op: str, frame: pl.DataFrame) -> dict[str, Any]:
        return self._told(op, arrow=frame.write_ipc_stream(None).getvalue())

    def _told(self, op: str, **given: Any) -> dict[str, Any]:
        answer = self._asked(op=op, **given)
        self.missing, self.extra = tuple(answer["missing"]), tuple(answer["extra"])
        return answer


class LossesProcess(ProjectProcess):
    """A process that computes the losses of a commit: ``[python, "-m", "orrery.pipeline.losses_host", folder]``."""

    def loss(self, function: str, bound: float, classes: Sequence[object], outputs: Floats, labels: Floats) -> Floats:
        """Have the loss of each row computed by the project's function, as :mod:`orrery.pipeline.own_loss` says.

        Raises
        ------
        ProjectFailed
            If the function fails or leaves its range, or takes the process with it.
        """
        flat = [np.ascontiguousarray(values, dtype="<f8").tobytes() for values in (outputs, labels)]
        given = {"function": function, "bound": bound, "classes": list(classes), "width": int(outputs.shape[1])}
        return np.frombuffer(self._asked(**given, outputs=flat[0], labels=flat[1])["output"], dtype="<f8")
