"""Walls around one program: namespaces of the kernel, in which there is nothing but what the program is to have.

It sees a file system of what it reads (read-only) and writes, and of nothing else; processes of its own; a network of
its own, with doors in its loopback and nothing else. It has no capability, gains none, and cannot make namespaces.

Two processes work together. The *guardian* calls :func:`apart`: what it forks from then on is in a user namespace and a
process namespace of its own. The program then calls :func:`enclose` before anything of the project runs. Both are
called in processes that are about to be the program, so that one which is forked with its libraries imported has the
same walls as one that is executed. Only the standard library is used here.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_SLAVE = 2, 4, 8, 4096, 16384, 1 << 19
MNT_DETACH = 2
READ_ONLY, NO_SUID, NO_DEVICES, NO_PROGRAMS = 1, 2, 4, 8
MOUNT_SETATTR = 442
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 1, 4, 24, 47, 4
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
DEVICES = ("null", "zero", "full", "random", "urandom")
ACCELERATORS = ("nvidia", "kfd", "dri", "dxg")
"""Beginnings of the names of devices that compute."""
_libc = ctypes.CDLL(None, use_errno=True)


def apart(show: Callable[[], None] | None = None) -> int:
    """Let all that this process forks from now on have users and processes of its own; return what holds them.

    That is a process which waits, takes in what lost its parent, and with which all others end; ``show`` lets those who
    look at it from outside see what it is.

    Raises
    ------
    OSError
        If the kernel does not allow it.
    """
    user, group = os.getuid(), os.getgid()
    _call(_libc.unshare(CLONE_NEWUSER | CLONE_NEWPID), "namespaces of users and processes")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    told, telling = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if show is not None:
                show()
            _hold(telling)
        finally:
            os._exit(1)
    os.close(telling)
    with os.fdopen(told, "rb") as pipe:
        if pipe.read() != b"1":
            os.waitpid(pid, 0)
            raise OSError("the process that holds the others could not be shut in")
    return pid


def _hold(telling: int) -> None:
    """Be the first process of the namespace: see nothing, may nothing, and end when the guardian does."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects what ends
    _call(_libc.unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC), "namespaces of files")
    _mount("", "/", "", MS_REC | MS_SLAVE)
    _mount("tmpfs", "/proc", "tmpfs", MS_NOSUID | MS_NODEV, "size=4k,mode=555")
    _pivot("/proc")
    _powerless()
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.write(telling, b"1")
    os.closerange(0, 1 << 16)
    while True:
        signal.pause()


def enclose(walls: dict[str, Any]) -> list[socket.socket]:
    """Shut this process in, and all that it will start.

    Parameters
    ----------
    walls : ``read`` and ``write``, folders and files that are there; ``scratch``, an empty folder that becomes
        ``/tmp``; ``doors``, ports of loopback on which somebody outside will listen; ``shared_bytes``, what
        ``/dev/shm`` may hold.

    Returns
    -------
    The sockets to listen on for the ``doors``.

    Raises
    ------
    OSError
        If a wall cannot be put up: then nothing may run.
    """
    kinds = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET
    _call(_libc.unshare(kinds), "namespaces of files and of the network")
    _raise_loopback()
    doors = [_door(port) for port in walls["doors"]]
    with open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")  # counted for this namespace alone: no further one in which it would have capabilities
    _mount("", "/", "", MS_REC | MS_SLAVE)
    temporary, root = os.path.join(walls["scratch"], "tmp"), os.path.join(walls["scratch"], "root")
    os.makedirs(temporary, mode=0o700, exist_ok=True)
    os.makedirs(root, mode=0o700, exist_ok=True)
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=8m,mode=755")
    _bind(temporary, root + "/tmp", NO_SUID | NO_DEVICES)  # nosec B108 - the program's own
    _devices(root, walls["shared_bytes"])
    for path in _without_inner(walls["read"]):
        _bind(path, root + path, NO_SUID | NO_DEVICES | READ_ONLY)
    for path in sorted(walls["write"]):
        _bind(path, root + path, NO_SUID | NO_DEVICES)
    _processes(root + "/proc")
    _pivot(root)
    _change("/", READ_ONLY, deep=False)
    _powerless()
    return doors


def _without_inner(paths: Iterable[str]) -> list[str]:
    """Return paths without those that are in a folder which is among them.

    >>> _without_inner(["/usr/lib", "/usr", "/user", "/etc/hosts"])
    ['/etc/hosts', '/user', '/usr']
    """
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(path.startswith(f"{one}/") for one in kept):
            kept.append(path)
    return kept


def _bind(source: str, target: str, attributes: int) -> None:
    """Show a folder or file at a place, which is made; nothing where it is not there."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif os.path.exists(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    else:
        return
    _mount(source, target, "", MS_BIND | MS_REC)
    _change(target, attributes)


def _devices(root: str, shared_bytes: int) -> None:
    os.makedirs(f"{root}/dev/shm")  # nosec B108 - the program's own
    found = [name for name in sorted(os.listdir("/dev")) if name in DEVICES or name.startswith(ACCELERATORS)]
    for name in found:
        _bind(f"/dev/{name}", f"{root}/dev/{name}", NO_SUID)
    if len(found) > len(DEVICES):
        for folder in ("/sys/bus", "/sys/class", "/sys/dev", "/sys/devices"):
            _bind(folder, root + folder, NO_SUID | NO_DEVICES | READ_ONLY)
    _mount("tmpfs", f"{root}/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"size={shared_bytes},mode=1777")  # nosec B108 - the program's own
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        os.symlink(f"/proc/self/fd/{number}", f"{root}/dev/{name}")
    os.symlink("/proc/self/fd", f"{root}/dev/fd")


def _processes(place: str) -> None:
    os.makedirs(place)
    _mount("proc", place, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name in ("acpi", "bus", "fs", "irq", "sys", "sysrq-trigger"):  # root could set the machine's switches there
        _bind(f"{place}/{name}", f"{place}/{name}", READ_ONLY | NO_SUID | NO_DEVICES | NO_PROGRAMS)


def _pivot(root: str) -> None:
    """Make a folder the root; the one before can be reached by no name any more."""
    os.chdir(root)
    number = PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(f"the system call is not known on {os.uname().machine}")
    _call(_libc.syscall(number, b".", b"."), "another root")
    _call(_libc.umount2(b".", MNT_DETACH), "the former root")
    os.chdir("/")


def _raise_loopback() -> None:
    """Raise the loopback of a new network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))


def _door(port: int) -> socket.socket:
    """Return what listens on a port of loopback."""
    door = socket.socket()
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind(("127.0.0.1", port))
    door.listen(64)
    return door


def _powerless() -> None:
    """Give up every capability, also for what will be executed."""
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(64):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
    _call(_libc.capset(header, none), "no capabilities")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    words = (text.encode() or None for text in (source, target, kind))
    _call(_libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None), f"{target} with {source or 'it'}")


def _change(path: str, attributes: int, deep: bool = True) -> None:
    settings = struct.pack("QQQQ", attributes, 0, 0, 0)
    flags = 0x8000 if deep else 0  # AT_RECURSIVE
    done = _libc.syscall(MOUNT_SETATTR, -100, path.encode(), flags, settings, ctypes.c_size_t(len(settings)))
    _call(done, f"the attributes of {path}")


def _call(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} ({what})")
