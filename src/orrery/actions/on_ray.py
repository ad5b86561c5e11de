"""Model processes on the machines of a Ray cluster, for who divides work among them (:mod:`orrery.actions.crew`).

A member of the crew is a Ray actor with one processor, and in it the same model process, started by the same command
and held to the same limits, as on this machine. It answers; everything else, the log included, stays with the command
that was called. An actor that dies is started again by Ray, anywhere in the cluster, and asked again: an answer
depends on the batch alone.

The machines must have orrery, and see its home folder, where the version and its environment are, under the same path.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from orrery.actions.desk import Command
from orrery.errors import NotAllowed, NotUnderstood, ProjectFailed
from orrery.pipeline.client import ModelProcess
from orrery.pipeline.rows import RowRefused

AGAIN = 3
"""So often an actor is started again, and a batch asked again."""
CONNECT_WITHIN = 5.0
UNSET = "or unset ORRERY_RAY and RAY_ADDRESS (or say ORRERY_RAY=none), to score on this machine."


class Refused(msgspec.Struct, frozen=True):
    """Why there is no answer, in a form that travels."""

    kind: str
    """``row``, ``project`` or ``machine``."""
    what: str
    column: str = ""
    row: int | None = None
    output: str = ""
    todo: str = ""


class Answering:
    """What runs in the cluster: a model process, started when it is first asked.

    Parameters
    ----------
    command : starts it.
    timeout : seconds that an answer may take.
    """

    def __init__(self, command: Command, timeout: float) -> None:
        self._command, self._timeout = command, timeout
        self._process: ModelProcess | None = None

    def predict(self, body: bytes) -> npt.NDArray[np.float64] | Refused:
        """Predict for an Arrow stream of rows."""
        absent = [path for path in self._command.needs if not Path(path).exists()]
        if absent:
            return Refused("machine", f"The machine {socket.gethostname()} of the cluster does not see {absent[0]}.")
        try:
            if self._process is None:
                process = self._command.process(self._timeout)
                process.start()
                self._process = process
            return np.array(self._process.predict(pl.read_ipc_stream(body)))
        except RowRefused as error:
            return Refused("row", error.what, column=error.column, row=error.row)
        except ProjectFailed as error:
            return Refused("project", error.what, output=error.output, todo=error.todo)


class Member:
    """A model process somewhere in the cluster; used as :class:`~orrery.pipeline.client.ModelProcess` is."""

    def __init__(self, kind: Any, command: Command, timeout: float) -> None:
        self._kind, self._command, self._timeout = kind, command, timeout
        self._actor: Any = None

    def start(self) -> None:
        """Ask the cluster for it; it comes when a processor is free."""
        self._actor = self._kind.remote(self._command, self._timeout)

    def predict(self, frame: pl.DataFrame) -> npt.NDArray[np.float64]:
        """Predict for a frame.

        Raises
        ------
        RowRefused, ProjectFailed
            As a process on this machine.
        NotAllowed
            If the cluster cannot do it.
        """
        import ray

        try:
            said = ray.get(self._actor.predict.remote(frame.write_ipc_stream(None).getvalue()))
        except ray.exceptions.RayError as error:
            raise NotAllowed(
                f"The Ray cluster gave no answer, after {AGAIN} more attempts where it could make them: "
                f"{_first(error)}",
                safe=KEPT,
                todo=f"Look at the cluster (`ray status`) and give the same command again, {UNSET}",
            ) from error
        if not isinstance(said, Refused):
            answer: npt.NDArray[np.float64] = said
            return answer
        if said.kind == "row":
            raise RowRefused(said.what, column=said.column, row=said.row)
        if said.kind == "project":
            raise ProjectFailed(said.what, output=said.output, todo=said.todo)
        raise NotAllowed(said.what, safe=KEPT, todo=f"Mount orrery's home folder there under the same path, {UNSET}")

    def kill(self) -> None:
        """End it at once, from any thread."""
        if self._actor is not None:
            import ray

            ray.kill(self._actor)

    def close(self) -> None:
        """End it; its model process ends with it."""
        self.kill()


KEPT = "What was scored so far is kept, and nothing is published."


class Cluster:
    """A Ray cluster that this process is connected to.

    Parameters
    ----------
    address : of it.
    """

    def __init__(self, address: str) -> None:
        import ray

        self.address = address
        self.processors = int(ray.cluster_resources().get("CPU", 0))
        self._kind = ray.remote(num_cpus=1, max_restarts=AGAIN, max_task_retries=AGAIN)(Answering)

    def member(self, command: Command, timeout: float) -> Member:
        """Return a model process that is not started yet."""
        return Member(self._kind, command, timeout)


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Cluster]:
    """Connect to a Ray cluster.

    Parameters
    ----------
    address : ``auto`` for the one that runs on this machine, or ``host:port`` of its head.

    Raises
    ------
    NotAllowed
        If Ray is not installed, or there is no such cluster.
    NotUnderstood
        If it is no address.
    """
    _reachable(address)
    try:
        import ray
    except ModuleNotFoundError:
        raise NotAllowed(
            f"A Ray cluster is named ({address}), and Ray is not installed here.",
            safe="Nothing was done.",
            todo=f"Install it (pip install 'orrery-ml[ray]'), {UNSET}",
        ) from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # connections, versions that differ: each has a class of its own
        raise NotAllowed(
            f"The Ray cluster at {address} cannot be used: {_first(error)}",
            safe="Nothing was done.",
            todo=f"Start it (`ray start --head`), correct the address, {UNSET}",
        ) from error
    try:
        yield Cluster(address)
    finally:
        ray.shutdown()


def _reachable(address: str) -> None:
    """See that somebody listens: Ray itself looks for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise NotUnderstood(
            f"{address!r} is no address of a Ray cluster.",
            safe="Nothing was done.",
            todo="Write host:port of its head, such as 10.0.0.1:6379, or auto for the one on this machine.",
        )
    try:
        socket.create_connection((host, int(port)), CONNECT_WITHIN).close()
    except OSError as error:
        raise NotAllowed(
            f"No Ray cluster can be reached at {address}: {error}.",
            safe="Nothing was done.",
            todo=f"Start it (`ray start --head`), correct the address, {UNSET}",
        ) from None


def _first(error: BaseException) -> str:
    """The reason, at the end of a chain of errors, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
