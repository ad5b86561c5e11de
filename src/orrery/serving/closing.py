"""Closing a port without losing anybody who is on the way in.

granian stops listening and answering at once, so it is done below it, on the sockets that listen. What the kernel has
connected and nobody has accepted yet would be reset by closing: first nobody else gets in, then who waits is accepted,
then the socket is closed. Who tries to connect in these milliseconds tries again after a second by TCP's own rule, and
finds another replica, or nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterator

WITHIN = 2.0
"""Seconds after which the socket is closed, whoever waits."""
_EACH = 0.002
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux, which the module socket does not name
_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET: of every packet, keep 0 bytes
_WAITING = 24  # in struct tcp_info of a socket that listens: connections that are not accepted yet


async def close(port: int) -> None:
    """Listen no more on a port of loopback, while who is connected stays, and other processes go on listening.

    The descriptors that listen become those of the null device, so that the loop that accepts on them finds neither a
    connection nor an error. Where there is no ``/proc`` nothing is done: then who comes last may be lost.
    """
    numbers = list(_listening(port))
    for number in numbers:
        _shut(number)
    loop = asyncio.get_running_loop()
    until = loop.time() + WITHIN
    while any(map(_waiting, numbers)) and loop.time() < until:
        await asyncio.sleep(_EACH)
    with open(os.devnull, "rb") as nothing:
        for number in numbers:
            os.dup2(nothing.fileno(), number, inheritable=False)


def _listening(port: int) -> Iterator[int]:
    """Yield the descriptors of this process that listen on a port."""
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        names = os.listdir("/proc/self/fd")
    for number in map(int, names):
        with contextlib.suppress(OSError), _borrowed(number) as found:  # most are no sockets
            there = found.family == socket.AF_INET and found.getsockname() == ("127.0.0.1", port)
            if there and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield number


def _shut(number: int) -> None:
    """Have the kernel drop whatever arrives for a socket that listens; connections that are there do not notice."""
    program = ctypes.create_string_buffer(_NOTHING)
    with contextlib.suppress(OSError), _borrowed(number) as found:
        found.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


def _waiting(number: int) -> int:
    """Return how many are connected and not accepted."""
    try:
        with _borrowed(number) as found:
            said = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return int(struct.unpack_from("I", said, _WAITING)[0])
    except OSError:
        return 0


@contextlib.contextmanager
def _borrowed(number: int) -> Iterator[socket.socket]:
    found = socket.socket(fileno=number)
    try:
        yield found
    finally:
        found.detach()
