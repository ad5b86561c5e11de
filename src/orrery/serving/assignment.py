"""Which version answers where: what the control plane decides and the inference server carries out."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from orrery.errors import Damaged
from orrery.serving.contract import Checker
from orrery.types import Role, Task

Policy = Literal["mask", "flag", "refuse"]
"""What becomes of a row that breaks the contract: broken values become null; it is only marked; it is refused."""


class Probation(msgspec.Struct, frozen=True, kw_only=True):
    """What a new version must keep to while the version before still stands by.

    Parameters
    ----------
    requests, time : how many it answers and how many seconds pass, at least, before it may stay.
    failures : share of its requests that it may fail on where the version before does not.
    latency : how many times as long as the version before it may take.
    before : the version that answers where it fails; for a canary and an arm it is the champion.
    """

    requests: int = 200
    time: float = 900.0
    failures: float = 0.01
    latency: float = 3.0
    before: int | None = None


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """One version in one role in one environment.

    Parameters
    ----------
    model, environment, version : what answers where.
    role : ``champion`` answers; ``canary`` and ``arm`` answer a share; ``shadow`` and ``guard`` see the same requests
        afterwards, and so does a canary those that it does not answer; ``standby`` waits in case the champion fails.
    artifact : folder of the trained version.
    python : interpreter of the version's environment.
    task : what the numbers that come out mean.
    broken : what becomes of values that break the contract.
    timeout : seconds that a caller waits at most.
    memory : bytes that a process of the version may use, with all that it starts; nothing for no limit.
    entity : input column that names what the row is about; empty for none.
    columns : data type of each input, for the description of the model.
    share, salt, unit : which part of the traffic a canary or an arm answers, as :class:`orrery.serving.route.Share`
        reads them.
    since : what tells this trial of the version from the next one.
    probation : for a version that is new in its role; nothing for one that is proven.
    repair : slope and intercept of a recalibration that is applied to what the artifact says (see
        :class:`orrery.pipeline.artifact.Repair`): a repaired version shares the process of the version it repairs.
    contract : ``columns`` and ``ordered`` as :func:`orrery.serving.contract.checker` reads them.
    personal : input columns that are personal: ``pseudonymised`` before anything else is done with them, ``encrypted``
        ones left out, since no model has seen them.
    """

    model: str
    environment: str
    version: int
    role: Role
    artifact: str
    python: str
    task: Task = "binary"
    broken: Policy = "mask"
    timeout: float = 10.0
    memory: int | None = None
    entity: str = ""
    columns: dict[str, str] = msgspec.field(default_factory=dict)
    contract: dict[str, Any] | None = None
    personal: dict[str, str] = msgspec.field(default_factory=dict)
    repair: tuple[float, float] | None = None
    share: float = 0.0
    salt: str = ""
    unit: str = ""
    since: str = ""
    probation: Probation | None = None

    @property
    def key(self) -> str:
        """Name of this slot in reports: environment, model and version."""
        return f"{self.environment}/{self.model}/{self.version}"

    @property
    def process(self) -> tuple[str, str, str]:
        """Slots that agree in this share a process."""
        return self.model, self.artifact, self.python

    @property
    def route(self) -> tuple[str, str]:
        """Environment and model: what a request's path names."""
        return self.environment, self.model


def certificate_mark(name: str) -> str:
    """Return what stands for a certificate with this common name where tokens are known by their hashes."""
    return hashlib.sha256(f"certificate/{name}".encode()).hexdigest()


class Pass(msgspec.Struct, frozen=True, kw_only=True):
    """A token, or the name of a certificate, that may ask for predictions.

    Parameters
    ----------
    hash : SHA-256 of the token, or :func:`certificate_mark`.
    until : when it runs out, in seconds since 1970.
    models : the models that it may ask; nothing for all.
    account : whose it is.
    """

    hash: str
    until: float
    models: tuple[str, ...] | None = None
    account: str = ""


class Assignment(msgspec.Struct, frozen=True):
    """All slots of one server, numbered so that it can say which it has carried out, and whose requests it answers."""

    seq: int
    slots: list[Slot] = msgspec.field(default_factory=list)
    passes: tuple[Pass, ...] = ()
    erasures: int = 0
    """How often somebody was erased: the journal begins a new file then, so that the old one can be purged."""
    graves: frozenset[str] = frozenset()
    """Who that was, as :meth:`orrery.data.pseudonyms.Pseudonyms.grave` has it: their requests are nobody's."""


def read(data: bytes) -> Assignment:
    """Read an assignment.

    Raises
    ------
    Damaged
        If it is not one, an environment has two champions of one model or none beside its challengers, or a contract
        cannot be read.
    """
    try:
        assignment = msgspec.json.decode(data, type=Assignment)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Damaged(f"The assignment cannot be read: {error}") from error
    champions = [slot.route for slot in assignment.slots if slot.role == "champion"]
    for route in {slot.route for slot in assignment.slots}:
        if champions.count(route) != 1:
            raise Damaged(
                f"The assignment {assignment.seq} has {champions.count(route)} champions in {'/'.join(route)}."
            )
    for slot in assignment.slots:
        if not 0 <= slot.share <= 1:
            raise Damaged(f"The share of {slot.key} is {slot.share}, which is not between 0 and 1.")
        try:
            Checker(slot.contract)
        except (AttributeError, TypeError, ValueError) as error:
            raise Damaged(f"The contract of {slot.key} cannot be read: {error}") from error
    return assignment


class AssignmentFile:
    """The last assignment on disk, so that a start does not need the control plane.

    Parameters
    ----------
    path : the file; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Assignment | None:
        """Return the last assignment, or nothing if there never was one.

        Raises
        ------
        Damaged
            If the file is not what was written.
        """
        try:
            return read(self.path.read_bytes())
        except FileNotFoundError:
            return None

    def save(self, assignment: Assignment) -> None:
        """Replace the file in one step."""
        fresh = self.path.with_suffix(f".{os.getpid()}")
        with open(fresh, "wb") as file:
            file.write(msgspec.json.encode(assignment))
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.path)
