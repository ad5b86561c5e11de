"""Closing a socket that listens without losing anybody who is on the way in.

What the kernel has connected and nobody has accepted yet would be reset by closing: first nobody else gets in, then who
waits is accepted, then the socket is closed. Who tries to connect in these milliseconds tries again after a second by
TCP's own rule, and finds another replica, or nobody.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct

WITHIN = 2.0
"""Seconds after which the socket is closed, whoever waits."""
EACH = 0.002
"""Seconds between two looks."""

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux, which the module socket does not name
_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET: of every packet, keep 0 bytes
_WAITING = 24  # in struct tcp_info of a socket that listens: connections that are not accepted yet


def shut(listening: socket.socket) -> None:
    """Have the kernel drop whatever arrives for a socket that listens; connections that are there do not notice.

    Where the kernel knows no such filter nothing is done: then who comes last may be lost.
    """
    program = ctypes.create_string_buffer(_NOTHING)
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


def waiting(listening: socket.socket) -> int:
    """Return how many are connected and not accepted."""
    try:
        said = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except (AttributeError, OSError):
        return 0
    return int(struct.unpack_from("I", said, _WAITING)[0])
