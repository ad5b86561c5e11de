"""What a program of a project is to see of the machine: the system and its libraries, what it reads, what it writes.

How that is made so is in :mod:`orrery.workers.namespaces`. Where the kernel does not allow it, programs run with limits
only, which is said of every version; or not at all, where the settings ask for walls.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import orrery
from orrery.errors import NotAllowed
from orrery.workers.relay import connected
from orrery.workers.way_out import PORT, WayOut

NAMESPACES = "namespaces"
"""How a program is shut in, where it is."""
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
OF_ETC = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "passwd", "group", "nsswitch.conf", "hosts", "host.conf"),
    *("localtime", "timezone", "alternatives", "mime.types", "protocols", "services", "fonts", "OpenCL", "gai.conf"),
    *("ssl/certs", "ssl/openssl.cnf", "ca-certificates", "ca-certificates.conf", "pki/tls/certs", "pki/ca-trust"),
)
"""What of ``/etc`` is no secret; not all of it, for the same user may own what others must not see."""
NAMED = ("LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
"""Variables that programs inherit, and that name what they read."""


@dataclass(frozen=True)
class Walls:
    """What one program sees.

    Parameters
    ----------
    read, write : folders and files, by the names that they have outside.
    way_out : leads it to the hosts that it may reach; without one it reaches nobody.
    door : port of its own loopback that leads to the socket ``behind``; 0 for none.
    behind : a Unix socket.
    """

    read: tuple[str, ...]
    write: tuple[str, ...] = ()
    way_out: WayOut | None = None
    door: int = 0
    behind: str = ""

    @property
    def out(self) -> int:
        """Port of its own loopback that is the way out; 0 for none."""
        return 0 if self.way_out is None else PORT + (self.door == PORT)

    def doors(self) -> dict[int, Callable[[socket.socket], socket.socket]]:
        """Return the ports of its own loopback that lead somewhere, and what says where."""
        found: dict[int, Callable[[socket.socket], socket.socket]] = {}
        if self.door:
            found[self.door] = lambda inner: connected(self.behind)
        if self.way_out is not None:
            found[self.out] = self.way_out
        return found

    def variables(self) -> dict[str, str]:
        """Return the variables of a program within."""
        found = {"HOME": "/tmp", "TMPDIR": "/tmp"}  # nosec B108 - the program's own
        return found if self.way_out is None else found | self.way_out.variables(self.out)


@dataclass(frozen=True)
class Walling:
    """Puts walls around programs, as the settings ask for it.

    Parameters
    ----------
    mode : ``auto`` where the kernel allows it, ``required`` or nothing runs, ``off``.
    hidden : the home folder, which no program sees but for what is named.
    """

    mode: str
    hidden: Path

    @property
    def standing(self) -> str:
        """How programs are contained: ``namespaces``, or ``limits only`` with the reason."""
        reason = self._obstacle()
        return f"limits only ({reason})" if reason else NAMESPACES

    def around(
        self,
        read: Iterable[str | Path],
        write: Iterable[str | Path] = (),
        *,
        way_out: WayOut | None = None,
        door: int = 0,
        behind: str = "",
    ) -> Walls | None:
        """Return the walls of a program, besides the system; none where there are none.

        Raises
        ------
        NotAllowed
            If there must be walls, and the kernel does not allow them.
        """
        reason = self._obstacle()
        if reason and self.mode == "required":
            raise NotAllowed(
                f"The code of projects must run within walls, and cannot: {reason}.",
                safe="None of it ran.",
                todo="Allow user namespaces on this machine, or set ORRERY_WALLS=auto.",
            )
        if reason:
            return None
        return Walls((*_system(), *_existing(read)), _existing(write), way_out, door, behind)

    def _obstacle(self) -> str:
        if self.mode == "off":
            return "ORRERY_WALLS is off"
        home = os.path.realpath(self.hidden)
        above = next((path for path in _system() if home == path or home.startswith(f"{path}/")), "")
        return f"the home folder lies in {above}, which programs read" if above else _refused()


def environment_of(python: str | Path) -> Path:
    """Return the folder of an interpreter's environment."""
    return Path(os.path.abspath(python)).parents[1]


def own_folders() -> list[Path]:
    """Return the folders that orrery's own packages are imported from."""
    found = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    found += [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    return [path for path in map(Path, dict.fromkeys(found)) if path.is_dir()]


def _existing(paths: Iterable[str | Path]) -> tuple[str, ...]:
    """Return absolute paths of what is there, and what they lead to where they are links."""
    found = [os.path.abspath(path) for path in paths if os.path.exists(path)]
    return tuple(dict.fromkeys(each for path in found for each in (path, os.path.realpath(path))))


@functools.cache
def _system() -> tuple[str, ...]:
    named = [path for name in NAMED for path in os.environ.get(name, "").split(":") if path]
    python: list[str | Path] = [
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        *own_folders(),
        Path(orrery.__file__).parents[1],
    ]
    return _existing([*SYSTEM, *(f"/etc/{name}" for name in OF_ETC), *named, *python])


@functools.cache
def _refused() -> str:
    """Return why the kernel allows no walls, by putting some up; empty where it does."""
    from orrery.workers.contained import Limits, run

    with tempfile.TemporaryDirectory(prefix="orrery-try-") as folder:
        argv, limits = [sys.executable, "-I", "-S", "-c", "pass"], Limits(wall_seconds=60)
        finished = run(argv, cwd=Path(folder), limits=limits, walls=Walls((*_system(), folder)))
    return "" if finished.ok else finished.reason.removeprefix("could not be started: ")
