"""A key that only a key service opens: what lies in the home folder is worth nothing without it.

The service makes a key once, and gives it twice: in the clear, and encrypted with a key that never leaves it. Only the
encrypted one is kept; each process that needs it asks the service to open it, and keeps it in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from orrery.errors import NotAllowed, NotUnderstood

AWS = "awskms:///"
"""What an address of a key in the Key Management Service of AWS begins with: ``awskms:///alias/orrery``, or an ARN."""
FILE = "privacy/key.wrapped"
"""Where the encrypted key is in the home folder."""
_CONTEXT = {"orrery": "personal data"}
"""The service opens nothing without it, and writes it down with each opening."""

Once = Callable[[Path, Callable[[], bytes]], bytes]


def service_key(address: str, file: Path, once: Once) -> bytes:
    """Return the key that a service opens; it makes one where there is none.

    Parameters
    ----------
    address : of the key that encrypts it.
    file : where the encrypted key is.
    once : reads a file, and makes it where it is not there; of two that do at the same time, one does.

    Raises
    ------
    NotUnderstood
        If the address is none of a service that is known.
    NotAllowed
        If the service does not open the key, cannot be reached, or its client is not installed.
    """
    if not address.startswith(AWS) or not (name := address.removeprefix(AWS)):
        kind = address.partition("://")[0]
        raise NotUnderstood(
            f"ORRERY_PRIVACY_KEY is {kind}://..., and that is no key service that orrery speaks with.",
            todo=f"Give the path of a file, or {AWS} and the id, alias or ARN of a key.",
        )
    client, refusals = _client()
    try:
        made = once(file, lambda: bytes(client.generate_data_key(**_asked(name), KeySpec="AES_256")["CiphertextBlob"]))
        return bytes(client.decrypt(**_asked(name), CiphertextBlob=made)["Plaintext"])
    except refusals as error:
        code = getattr(error, "response", {}).get("Error", {}).get("Code", type(error).__name__)
        raise NotAllowed(
            f"The key service does not open the key of personal data: {code}.",
            safe="Nothing was written in the clear.",
            todo=f"May this machine use {name} to generate data keys and to decrypt? Is it enabled?",
        ) from None
    except OSError as error:
        raise NotAllowed(f"{file} cannot be read or made: {error.strerror}.", safe="No key was lost.") from None


def _asked(name: str) -> dict[str, Any]:
    return {"KeyId": name, "EncryptionContext": _CONTEXT}


def _client() -> tuple[Any, tuple[type[Exception], ...]]:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise NotAllowed(
            "The client of the key service is not installed.",
            safe="Nothing was written in the clear.",
            todo="pip install 'orrery-ml[kms]'",
        ) from None
    limits = Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 3, "mode": "standard"})
    try:
        return boto3.client("kms", config=limits), (BotoCoreError, ClientError)
    except (BotoCoreError, ValueError) as error:
        raise NotAllowed(
            f"The key service cannot be asked: {error}.",
            safe="Nothing was written in the clear.",
            todo="Credentials and region come from the environment, as AWS's own tools read them.",
        ) from None
