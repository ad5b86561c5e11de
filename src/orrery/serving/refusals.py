"""What a request can be refused for, beyond the errors that every part of orrery shares, and how each protocol says so.

::

    OrreryError
    ├── NotUnderstood
    │   ├── TooLarge        the body or the number of rows is over the limit
    │   ├── TooSlow         the body did not arrive in time
    │   ├── LengthNeeded    the body's length must be told
    │   ├── WrongKind       the content type or encoding is none that is read here
    │   └── RowsRefused     the model cannot use a value
    ├── Overloaded          too many requests wait already
    ├── Unavailable         the model cannot answer now
    ├── ModelFailed         the model's own code failed on this request
    ├── NotInstalled        a package that explaining takes is not there
    └── NoPass              access is required, and no token was shown that opens anything
"""

from __future__ import annotations

from typing import NamedTuple

from orrery.errors import ContractBroken, NotFound, NotUnderstood, OrreryError


class TooLarge(NotUnderstood):
    """The request is larger than this server reads."""


class TooSlow(NotUnderstood):
    """The request's body did not arrive in time."""


class LengthNeeded(NotUnderstood):
    """A table must come with its length: in chunks, it could break off unseen."""


class WrongKind(NotUnderstood):
    """The request's content type is not one that is read here."""


class RowsRefused(NotUnderstood):
    """The model cannot use a value; ``row`` says of which row, if that is known."""

    def __init__(self, what: str, *, row: int | None) -> None:
        super().__init__(what)
        self.row = row


class Overloaded(OrreryError):
    """Too many requests are waiting for this model."""


class Unavailable(OrreryError):
    """The model cannot answer now."""


class ModelFailed(OrreryError):
    """The model failed on this request."""


class NotInstalled(OrreryError):
    """A package that this takes is not installed beside the model."""


class NoPass(OrreryError):
    """A token is needed here."""


class Code(NamedTuple):
    """What one refusal is called.

    Parameters
    ----------
    http : status of HTTP.
    grpc : name of gRPC's status code.
    mlflow : MLflow's ``error_code``.
    """

    http: int
    grpc: str
    mlflow: str


FAILED = Code(500, "INTERNAL", "INTERNAL_ERROR")
"""What an error is called that nobody foresaw."""

CODES: tuple[tuple[type[OrreryError], Code], ...] = (
    (TooLarge, Code(413, "RESOURCE_EXHAUSTED", "BAD_REQUEST")),
    (TooSlow, Code(408, "DEADLINE_EXCEEDED", "BAD_REQUEST")),
    (LengthNeeded, Code(411, "INVALID_ARGUMENT", "BAD_REQUEST")),
    (WrongKind, Code(415, "INVALID_ARGUMENT", "BAD_REQUEST")),
    (ContractBroken, Code(422, "INVALID_ARGUMENT", "INVALID_PARAMETER_VALUE")),
    (NotUnderstood, Code(400, "INVALID_ARGUMENT", "BAD_REQUEST")),
    (NotFound, Code(404, "NOT_FOUND", "RESOURCE_DOES_NOT_EXIST")),
    (Overloaded, Code(429, "RESOURCE_EXHAUSTED", "REQUEST_LIMIT_EXCEEDED")),
    (Unavailable, Code(503, "UNAVAILABLE", "TEMPORARILY_UNAVAILABLE")),
    (ModelFailed, FAILED),
    (NoPass, Code(401, "UNAUTHENTICATED", "UNAUTHENTICATED")),
    (NotInstalled, Code(501, "UNIMPLEMENTED", "NOT_IMPLEMENTED")),
)


def code_of(error: BaseException) -> Code:
    """Return what an error is called."""
    return next((code for kind, code in CODES if isinstance(error, kind)), FAILED)


def said(error: BaseException) -> str:
    """Return what the caller is told: nothing of the server's inside."""
    return str(error) if isinstance(error, OrreryError) else "This server failed; its log says how."
