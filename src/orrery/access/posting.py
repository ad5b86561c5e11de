"""Sending a request to an address that somebody named: it goes to what was checked, and ends in time."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import httpcore

from orrery.access.outgoing import resolved, split
from orrery.errors import OrreryError


def post(url: str, body: bytes, headers: Mapping[str, str], *, private: bool = False, seconds: float = 15.0) -> int:
    """Send a body and return the status of the answer; redirects are an answer, and nothing of it is read.

    Parameters
    ----------
    private : see :func:`resolved`.
    seconds : how long it may take, from the name to the answer.

    Raises
    ------
    OrreryError
        If there is no answer, or it must not be sent there.
    """
    split(url, private=private)
    until = time.monotonic() + seconds
    limits = {name: seconds for name in ("connect", "read", "write", "pool")}
    try:
        with (
            httpcore.ConnectionPool(ssl_context=_trust(), network_backend=_Checked(private, until)) as pool,
            pool.stream(
                "POST", url, headers=list(headers.items()), content=body, extensions={"timeout": limits}
            ) as answer,
        ):
            return int(answer.status)
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError, ssl.SSLError) as error:
        raise OrreryError(f"No answer: {type(error).__name__} {error}".strip()) from None


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Checked(httpcore.NetworkBackend):
    """Connects to what was resolved and checked, and to nothing else."""

    def __init__(self, private: bool, until: float) -> None:
        self._private, self._until, self._sync = private, until, httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failed: Exception = OrreryError(f"{host} does not answer.")
        for address in resolved(host, port, private=self._private):
            try:
                left = _left(self._until)
                return _Timed(self._sync.connect_tcp(address, port, timeout=left), self._until)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed


class _Timed(httpcore.NetworkStream):
    """A connection that ends at an instant, however slowly the other side goes on."""

    def __init__(self, stream: httpcore.NetworkStream, until: float) -> None:
        self._stream, self._until = stream, until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, timeout=_left(self._until))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout=_left(self._until))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, timeout=_left(self._until))
        return _Timed(secured, self._until)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("it takes too long")
    return left
