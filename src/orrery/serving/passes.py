"""Whose requests are answered, where access is required: of who shows a token for inference, or a certificate.

The control plane says which there are, with the assignment; so this goes on without it. A token that is revoked opens
nothing as soon as the next assignment is there, a fraction of a second later.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping

from orrery.errors import NotFound
from orrery.serving.assignment import Assignment, Pass, certificate_mark
from orrery.serving.fleet import Fleet
from orrery.serving.refusals import NoPass
from orrery.serving.requests import CERTIFICATE, Fields


class Guest:
    """Who asks: anybody where access is open.

    Parameters
    ----------
    models : what they may ask; nothing for all.
    account : whose token they have shown; empty for anybody.
    denied : counts what they were denied.
    """

    __slots__ = ("_denied", "account", "models")

    def __init__(
        self,
        models: tuple[str, ...] | None = None,
        account: str = "",
        denied: Callable[[str, str], None] = lambda account, model: None,
    ) -> None:
        self.models, self.account, self._denied = models, account, denied

    def sees(self, model: str) -> bool:
        """Say whether they may know of a model."""
        return self.models is None or model in self.models

    def check(self, model: str, environment: str) -> None:
        """Refuse a model that is not theirs, as if it were not there.

        Raises
        ------
        NotFound
            If it is not theirs.
        """
        if self.models is not None and model not in self.models:
            self._denied(self.account, model)
            raise NotFound(f"{model!r} is not served in {environment}.")


ANYBODY = Guest()


class Passes:
    """Tells who asks.

    Parameters
    ----------
    fleet : whose assignment names the tokens.
    key : of the home folder, whose owner may ask for everything; empty where nobody must show anything.
    """

    def __init__(self, fleet: Fleet, key: str) -> None:
        self._fleet, self._key = fleet, key
        self._of: Assignment | None = None
        self._known: dict[str, Pass] = {}
        self.denied: dict[tuple[str, str], int] = {}
        """Account and model -> denied requests not told yet; no account where what was shown opens nothing."""

    def guest(self, fields: Fields) -> Guest:
        """Return who asks.

        Raises
        ------
        NoPass
            If they must show something, and show nothing that opens anything.
        """
        if not self._key:
            return ANYBODY
        assignment = self._fleet.assignment
        if assignment is not self._of:
            self._of = assignment
            self._known = {one.hash: one for one in assignment.passes} if assignment else {}
        given = fields.get("authorization") or ""
        if not given and (name := fields.get(CERTIFICATE)):
            found = self._known.get(certificate_mark(name))
            if found is None or found.until <= time.time():
                raise NoPass(f"The certificate of {name} is of no account that may ask.", todo="orrery user add")
            return Guest(found.models, found.account)
        scheme, _, shown = given.partition(" ")
        # A dictionary of hashes: what it takes to look one up says nothing about the tokens.
        found = self._known.get(hashlib.sha256(shown.strip().encode()).hexdigest())
        if found is None and scheme.lower() == "bearer" and hmac.compare_digest(shown.encode(), self._key.encode()):
            return ANYBODY
        if scheme.lower() != "bearer" or found is None or found.until <= time.time():
            if shown:
                self._count("", "")
            raise NoPass("A token is needed here.", todo="orrery token create NAME --scope inference")
        return Guest(found.models, found.account, self._count)

    def told(self, denied: Mapping[tuple[str, str], int]) -> None:
        """Forget what the control plane has been told."""
        for key, times in denied.items():
            self.denied[key] = self.denied.get(key, 0) - times
            if self.denied[key] <= 0:
                del self.denied[key]

    def _count(self, account: str, model: str) -> None:
        """Count a denied request; what is asked for but not there is no model, or a thousand names would fill us."""
        served = self._fleet.assignment.slots if self._fleet.assignment else ()
        if account and not any(slot.model == model for slot in served):
            return
        self.denied[account, model] = self.denied.get((account, model), 0) + 1
