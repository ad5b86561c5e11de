"""Every error that orrery raises on purpose.

::

    OrreryError
    ├── NotUnderstood        configuration, input or a request that cannot be read
    │   └── ContractBroken   rows that break a dataset's contract
    ├── NotFound             a model, version, dataset, environment or file that is not there
    ├── NotAllowed           the policy or the state forbids it
    │   ├── Conflict         somebody else was faster; look again and decide anew
    │   └── TooOften         it was tried too often; after a wait it is looked at again
    ├── ProjectFailed        the user's own code failed; the platform is unharmed
    └── Damaged              stored data is not what was written

A class's docstring is its default message. ``what`` says what happened, ``safe`` what was not lost, ``todo`` what to
do next: each one a sentence for somebody who was not there.
"""

from __future__ import annotations

import inspect


class OrreryError(Exception):
    """Something went wrong in orrery."""

    def __init__(self, what: str = "", *, safe: str = "", todo: str = "") -> None:
        self.what = what or inspect.getdoc(type(self)) or type(self).__name__
        self.safe = safe
        self.todo = todo
        super().__init__(" ".join(part for part in (self.what, self.safe, self.todo) if part))


class NotUnderstood(OrreryError):
    """The input could not be understood."""


class ContractBroken(NotUnderstood):
    """Rows break the contract of their dataset."""


class NotFound(OrreryError):
    """There is no such thing here."""


class NotAllowed(OrreryError):
    """The policy does not allow this now."""


class Conflict(NotAllowed):
    """Somebody else changed this in the meantime."""


class TooOften(NotAllowed):
    """It was tried too often."""

    def __init__(self, what: str = "", *, wait: float, safe: str = "", todo: str = "") -> None:
        super().__init__(what, safe=safe, todo=todo)
        self.wait = wait


class ProjectFailed(OrreryError):
    """The project's own code failed."""

    def __init__(self, what: str = "", *, output: str = "", safe: str = "", todo: str = "") -> None:
        super().__init__(what, safe=safe, todo=todo)
        self.output = output


class Damaged(OrreryError):
    """Stored data is not what was written."""
