"""What a request can be refused for, beyond the errors that every part of orrery shares.

::

    OrreryError
    ├── NotUnderstood
    │   ├── TooLarge        the body or the number of rows is over the limit
    │   └── WrongKind       the content type is none that is read here
    ├── Overloaded          too many requests wait already
    ├── Unavailable         the model cannot answer now
    └── ModelFailed         the model's own code failed on this request
"""

from __future__ import annotations

from orrery.errors import NotUnderstood, OrreryError


class TooLarge(NotUnderstood):
    """The request is larger than this server reads."""


class WrongKind(NotUnderstood):
    """The request's content type is not one that is read here."""


class Overloaded(OrreryError):
    """Too many requests are waiting for this model."""


class Unavailable(OrreryError):
    """The model cannot answer now."""


class ModelFailed(OrreryError):
    """The model failed on this request."""
