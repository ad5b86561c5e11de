"""Time stamps of RFC 3161: an authority signs that a hash existed at an instant.

What is stamped is the hash of an event itself, so that anybody can check it without orrery:
``openssl ts -verify -digest HASH -in TOKEN -CAfile CA``.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orrery.errors import NotUnderstood, OrreryError
from orrery.timeline.anchor import Anchor
from orrery.timeline.event import Event, canonical
from orrery.types import format_instant

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

LARGEST = 1 << 16
"""Bytes that the answer of an authority may have."""


def stamp(address: str, event: Event, patience: float = 30.0) -> str:
    """Have an event's hash stamped; return the authority's answer, base64.

    Parameters
    ----------
    address : ``tsa+https://...``.
    event : whose hash.
    patience : seconds.

    Raises
    ------
    OrreryError
        If the authority does not answer, or its answer is of something else.
    """
    import httpx
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    fields = {name: value for name, value in event.to_json().items() if name != "hash"}
    body = canonical(fields).encode()  # what the event's hash is the SHA-256 of
    request = TimestampRequestBuilder().data(body).hash_algorithm(HashAlgorithm.SHA256).build()
    url = address.removeprefix("tsa+")
    try:
        answer = httpx.post(
            url,
            content=request.as_bytes(),
            headers={"Content-Type": "application/timestamp-query"},
            timeout=patience,
        )
    except httpx.HTTPError as error:
        raise OrreryError(f"{url} gives no time stamp: {error}", safe="The timeline is as it was.") from error
    if answer.status_code != 200 or len(answer.content) > LARGEST:
        raise OrreryError(f"{url} gives no time stamp: code {answer.status_code}.", safe="The timeline is as it was.")
    told = _read(answer.content)
    if told.tst_info.message_imprint.message != bytes.fromhex(event.hash) or told.tst_info.nonce != request.nonce:
        raise OrreryError(f"{url} stamped something else.", safe="It was not used.")
    return base64.b64encode(answer.content).decode()


def stamped(token: str) -> datetime:
    """Return the instant that a stamp says; nothing is checked.

    Raises
    ------
    NotUnderstood
        If it is no stamp.
    """
    when: datetime = _read(_bytes(token)).tst_info.gen_time
    return when


def roots(file: Path) -> list[Certificate]:
    """Return the certificates of a file that are trusted.

    Raises
    ------
    NotUnderstood
        If there are none.
    """
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as error:
        raise NotUnderstood(f"{file} holds no certificates in PEM: {error}.") from error


def check(anchor: Anchor, trusted: list[Certificate]) -> list[str]:
    """Return a sentence for each stamp of an anchor that does not hold.

    Parameters
    ----------
    anchor : whose stamps.
    trusted : certificates of the authorities, or of who certified them.
    """
    return [
        f"The time stamp of event {anchor.seq} by {address} does not hold: {fault}"
        for address, token in anchor.stamps.items()
        if (fault := _fault(anchor, token, trusted))
    ]


def _fault(anchor: Anchor, token: str, trusted: list[Certificate]) -> str:
    from rfc3161_client import VerificationError, VerifierBuilder

    try:
        answer = _read(_bytes(token))
        VerifierBuilder(roots=trusted).build().verify(answer, bytes.fromhex(anchor.hash))
    except NotUnderstood as error:
        return error.what
    except (VerificationError, ValueError) as error:
        return f"{error}."
    when: datetime = answer.tst_info.gen_time
    apart = abs((when - anchor.at).total_seconds())
    if apart > DAY:
        return f"the anchor says {format_instant(anchor.at)[:19]}, the stamp {format_instant(when)[:19]}."
    return ""


DAY = 86400.0
"""Seconds that an anchor and its stamp may be apart: clocks differ, a rewritten past differs more."""


def _bytes(token: str) -> bytes:
    try:
        return base64.b64decode(token, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NotUnderstood("it is not base64.") from error


def _read(answer: bytes) -> Any:
    from rfc3161_client import decode_timestamp_response

    try:
        told = decode_timestamp_response(answer)
        _ = told.tst_info.message_imprint.message
    except Exception as error:  # the library raises what its parser raises
        raise NotUnderstood(f"it is no time stamp ({str(error)[:120]}).") from error
    return told
