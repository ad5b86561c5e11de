"""Walls: each attempt on what is outside fails within them, and succeeds without, so that the test says something."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orrery.access.outgoing import elsewhere
from orrery.errors import NotAllowed
from orrery.workers import walls as walls_module
from orrery.workers.contained import Finished, Limits, run, spawn
from orrery.workers.relay import Relay, connected, listening
from orrery.workers.walls import NAMESPACES, Walling
from orrery.workers.warm import StillImporting, WarmStarts
from orrery.workers.way_out import WayOut

pytestmark = pytest.mark.walls
MB = 1 << 20
PROGRAM = "program_of_this_test"
LIMITS = Limits(wall_seconds=60)
SECRET = "this is for nobody"


class Forking(WarmStarts):
    """Warm starts that fail where a program could not be forked."""

    def start(self, config: Any, pipes: Any) -> Any:
        started = super().start(config, pipes)
        assert started is not None, "it would be executed"
        return started


@pytest.fixture(scope="module")
def fork_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmStarts]:
    warm = Forking(tmp_path_factory.mktemp("imported"), [PROGRAM])
    place = warm.place(sys.executable)
    place.mkdir()
    (place / f"{PROGRAM}.json").write_text('["numpy"]')
    yield warm
    warm.close()


class Room:
    """A program's own folder, beside a home folder that it is not to see."""

    def __init__(self, folder: Path, warm: WarmStarts | None) -> None:
        self.home, self.own, self.warm = folder / "home", folder / "home" / "work", warm
        self.own.mkdir(parents=True)
        (self.home / "key").write_text(SECRET)
        (folder / ".ssh").mkdir()
        (folder / ".ssh" / "id").write_text(SECRET)
        self.walling = Walling("auto", self.home)
        if self.walling.standing != NAMESPACES:
            pytest.skip(f"not run: {self.walling.standing}")

    def run(self, code: str, walled: bool = True, limits: Limits = LIMITS, **more: Any) -> Finished:
        (self.own / f"{PROGRAM}.py").write_text(code)
        walls = self.walling.around([], [self.own], **more) if walled else None
        argv = [sys.executable, "-m", PROGRAM]
        return run(argv, cwd=self.own, limits=limits, warm=self.warm, walls=walls)

    def said(self, code: str, walled: bool = True, **more: Any) -> Any:
        finished = self.run(f"import json, os, socket, signal, sys\n{code}\nprint(json.dumps(found))", walled, **more)
        assert finished.ok, finished
        return json.loads(finished.tail)


@pytest.fixture(params=["executed", "forked"])
def room(tmp_path: Path, request: pytest.FixtureRequest) -> Room:
    return Room(tmp_path, request.getfixturevalue("fork_servers") if request.param == "forked" else None)


def tried(what: str, error: str = "OSError") -> str:
    return f"try:\n    found = {what}\nexcept {error} as error:\n    found = type(error).__name__\n"


def test_the_files_of_others_are_not_there(room: Room) -> None:
    for path in (room.home / "key", room.home.parent / ".ssh" / "id", Path(__file__)):
        code = tried(f"open({str(path)!r}).read()[:18]")
        assert room.said(code) == "FileNotFoundError", path
        assert room.said(code, walled=False) == path.read_text()[:18]
    shadow = tried("len(open('/etc/shadow').read())")
    assert room.said(shadow) == "FileNotFoundError"
    listed = f"found = os.listdir({str(room.home)!r})"
    assert room.said(listed) == ["work"] and set(room.said(listed, walled=False)) == {"work", "key"}


def test_only_its_own_folder_can_be_written_and_that_is_there_afterwards(room: Room, tmp_path: Path) -> None:
    for path in ("/usr/orrery-test", f"{sys.prefix}/orrery-test", "/orrery-test", "/dev/orrery-test"):
        assert room.said(tried(f"open({path!r}, 'w').write('x')")) == "OSError", path
    outside = tried(f"open({str(tmp_path / 'outside')!r}, 'w').write('x')")
    assert room.said(outside + "os.makedirs('inner'); open('inner/mine', 'w').write('y')") in (1, "FileNotFoundError")
    assert not (tmp_path / "outside").exists() and (room.own / "inner" / "mine").read_text() == "y"
    assert room.said(outside, walled=False) == 1 and (tmp_path / "outside").exists()
    before = set(os.listdir("/tmp"))
    assert (
        room.said("open('/tmp/mine', 'w').write('z'); found = [os.environ['HOME'], os.environ['TMPDIR']]")
        == ["/tmp"] * 2
    )
    left = {name for name in set(os.listdir("/tmp")) - before if name.startswith("orrery-walls-")}
    assert not Path("/tmp/mine").exists() and not left


def test_it_reaches_nobody(room: Room) -> None:
    with socket.socket() as listener, socket.socket(socket.AF_UNIX) as abstract:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        abstract.bind(f"\0orrery-test-{os.getpid()}")
        abstract.listen()
        port = listener.getsockname()[1]
        code = tried(f"socket.create_connection(('127.0.0.1', {port}), 5).getsockname()[0]")
        assert room.said(code) == "ConnectionRefusedError"
        assert room.said(code, walled=False) == "127.0.0.1"
        assert room.said(code, way_out=WayOut(elsewhere)) == "ConnectionRefusedError"
        code = f"s = socket.socket(socket.AF_UNIX)\n{tried(f's.connect({abstract.getsockname()!r})')}"
        assert room.said(code) == "ConnectionRefusedError" and room.said(code, walled=False) is None
    code = tried("socket.create_connection(('192.0.2.1', 9), 5).close()")
    assert room.said(code) == "OSError"
    assert room.said("found = [name for _, name in socket.if_nameindex()]") == ["lo"]


def test_it_sees_and_ends_no_process_of_others(room: Room) -> None:
    victim = subprocess.Popen(["sleep", "600"], env={"OF_SOMEBODY": SECRET})
    try:
        seen = (
            "found = ''\nfor pid in filter(str.isdigit, os.listdir('/proc')):\n    try:\n"
            "        found += open(f'/proc/{pid}/environ').read()\n    except OSError:\n        pass\n"
            f"found = {SECRET!r} in found"
        )
        assert room.said(seen) is False and room.said(seen, walled=False) is True
        pids = "found = [int(pid) for pid in os.listdir('/proc') if pid.isdigit()]"
        assert set(room.said(pids)) == {1, 2} and victim.pid in room.said(pids, walled=False)
        kill = tried(f"os.kill({victim.pid}, signal.SIGKILL)")
        assert room.said(kill) == "ProcessLookupError" and victim.poll() is None
        everybody = tried("os.kill(-1, signal.SIGTERM)")
        assert room.said(everybody) in (None, "ProcessLookupError") and victim.poll() is None
        assert room.said(tried("os.kill(1, signal.SIGKILL)") + "found = 'goes on'") == "goes on"
        assert room.said(tried("os.listdir('/proc/1/root')")) == "PermissionError"
        assert room.said(tried("open('/proc/1/environ').read()")) == "PermissionError"
        # Without walls it is there, and is ended, unless this machine itself keeps programs from ending others.
        without = room.said(kill, walled=False)
        assert without == "PermissionError" or (without is None and victim.wait(10) == -9)
    finally:
        victim.kill()
        victim.wait()


def test_it_has_no_power_and_gets_none(room: Room) -> None:
    code = "found = {l.split()[0]: l.split()[1] for l in open('/proc/self/status') if l.startswith(('Cap', 'NoNew'))}"
    told = room.said(code)
    assert {told[name] for name in told if name.startswith("Cap")} == {"0" * 16} and told["NoNewPrivs:"] == "1"
    libc = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    for flags in (0x10000000, 0x00020000, 0x10000000 | 0x40000000):  # users, files, users with a network
        assert room.said(f"{libc}found = libc.unshare({flags})") == -1
    assert room.said(f"{libc}found = libc.mount(b'x', b'/tmp', b'tmpfs', 0, None)") == -1
    assert room.said(f"{libc}found = libc.umount2(b'/proc/sys', 2)") == -1
    assert room.said(tried("open('/proc/sys/vm/swappiness', 'w').write('1')")) == "OSError"
    assert room.said(tried("os.mknod('/tmp/disk', 0o660 | 0o60000, os.makedev(8, 0))")) == "PermissionError"


def test_limits_hold_within_walls_and_nothing_is_left(room: Room) -> None:
    hungry = room.run("import time\nx = bytearray(300 << 20)\ntime.sleep(60)", limits=Limits(memory_bytes=150 * MB))
    assert hungry.reason == "used more than 150.0 MB of memory"
    bomb = "import os, time\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        time.sleep(.1)"
    assert room.run(bomb, limits=Limits(processes=20, wall_seconds=60)).reason == "started more than 20 processes"
    slow = "import os, time\nif os.fork() == 0:\n    os.setsid()\ntime.sleep(600)"
    assert room.run(slow, limits=Limits(wall_seconds=1)).reason == "did not end within 1 s"
    inside = [one for one in psutil.process_iter(["cwd"]) if str(room.own) == (one.info["cwd"] or "")]
    assert inside == []
    assert room.run("import sys; sys.exit(7)").code == 7
    assert room.run("import os; os.kill(os.getpid(), 11)").signal == 11


def test_a_program_is_asked_to_end(room: Room) -> None:
    (room.own / f"{PROGRAM}.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(600)")
    argv, walls = [sys.executable, "-m", PROGRAM], room.walling.around([], [room.own])
    with spawn(argv, cwd=room.own, stdout=subprocess.PIPE, warm=room.warm, walls=walls) as program:
        assert program.stdout is not None and program.stdout.readline() == b"here\n"
        program.terminate()
        finished = program.wait(30)
        assert finished is not None and finished.signal == 15
    assert not psutil.pid_exists(program.pid)


def test_a_door_leads_to_one_socket(room: Room) -> None:
    place = room.home / ("a long name " * 8) / "run" / "door.sock"  # longer than the kernel allows as an address
    with listening(place) as listener:
        threading.Thread(target=_echo, args=[listener], daemon=True).start()
        code = "with socket.create_connection(('127.0.0.1', 8700), 10) as s:\n    s.sendall(b'x' * 300000)\n"
        code += "    s.shutdown(1)\n    found = len(b''.join(iter(lambda: s.recv(65536), b'')))"
        assert room.said(code, door=8700, behind=str(place)) == 300000
    nobody = tried("socket.create_connection(('127.0.0.1', 8700), 10).recv(1).decode()")
    assert room.said(nobody, door=8700, behind=str(place)) in ("", "ConnectionResetError")
    assert room.said(nobody) == "ConnectionRefusedError"  # no door


def _echo(listener: socket.socket) -> None:
    inner, _ = listener.accept()
    with inner:
        while block := inner.recv(65536):
            inner.sendall(block)


ASKS = """
import urllib.error, urllib.request
try:
    found = urllib.request.urlopen({url!r}, timeout=20).read().decode()
except urllib.error.HTTPError as error:
    found = [error.code, error.read().decode()]
except OSError as error:
    found = str(error)
"""
TUNNELS = """
s = socket.create_connection(("127.0.0.1", int(os.environ["HTTPS_PROXY"].rpartition(":")[2])), 20)
s.sendall(b"CONNECT {there} HTTP/1.1\\r\\n\\r\\n")
found = s.recv(4096).decode().splitlines()[0]
if " 200 " in found:
    s.sendall(b"ping")
    found = s.recv(64).decode()
"""


class Neighbours:
    """A machine beside this one, as far as a way out knows: its name leads to loopback, where a server is."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return ["127.0.0.1"] if (host, port) == ("warehouse.example", self._port) else elsewhere(host, port)


@pytest.fixture
def server() -> Iterator[int]:
    """A listener on loopback that answers everybody: the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_answering, args=[listener], daemon=True).start()
        yield listener.getsockname()[1]


def _answering(listener: socket.socket) -> None:
    while True:
        try:
            inner, _ = listener.accept()
        except OSError:
            return
        with inner:
            block = inner.recv(65536)
            text = b"pong" if block == b"ping" else block
            head = b"" if block == b"ping" else b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text)
            inner.sendall(head + text)


def test_a_way_out_leads_to_other_machines_and_not_to_this_one(room: Room, server: int) -> None:
    here = f"http://127.0.0.1:{server}/"
    assert room.said(ASKS.format(url=here), walled=False).startswith("GET / HTTP/1.1")
    for name in ("127.0.0.1", "127.1.2.3", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"):
        out = WayOut(elsewhere, direct=False)
        url = f"http://{name}:{server}/"
        told = room.said(ASKS.format(url=url), way_out=out)
        assert told[0] == 403 and "no program of a project reaches" in told[1], (name, told)
        assert out.refused == [f"{name.strip('[]')}:{server}"]
        tunnel = room.said(TUNNELS.replace("{there}", f"{name}:{server}"), way_out=WayOut(elsewhere))
        assert tunnel == "HTTP/1.1 403 Forbidden", name
    neighbours = Neighbours(server)
    code = ASKS.format(url=f"http://warehouse.example:{server}/rows?of=all")
    told = room.said(code, way_out=WayOut(neighbours))
    assert told.startswith("GET /rows?of=all HTTP/1.1\r\n") and "Connection: close" in told and "Proxy" not in told
    assert room.said(TUNNELS.replace("{there}", f"warehouse.example:{server}"), way_out=WayOut(neighbours)) == "pong"
    assert neighbours.asked == ["warehouse.example"] * 2


def test_every_address_of_this_machine_is_this_machine() -> None:
    own = {one.address for links in psutil.net_if_addrs().values() for one in links if one.family == socket.AF_INET}
    for address in own:
        with pytest.raises(NotAllowed):
            elsewhere(address, 80)
    assert elsewhere("192.0.2.77", 80) == ["192.0.2.77"]


def test_a_program_reaches_its_own_loopback_and_plain_sockets_reach_nobody(room: Room, server: int) -> None:
    code = "import threading\nl = socket.create_server(('127.0.0.1', 0))\n"
    code += "answers = lambda: l.accept()[0].sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\nown')\n"
    code += "threading.Thread(target=answers, daemon=True).start()\n"
    code += "import urllib.request\n"
    code += "found = urllib.request.urlopen(f'http://127.0.0.1:{l.getsockname()[1]}/', timeout=20).read(3).decode()"
    assert room.said(code, way_out=WayOut(elsewhere)) == "own"
    plain = tried(f"socket.create_connection(('127.0.0.1', {server}), 5).getsockname()[0]")
    assert room.said(plain, walled=False) == "127.0.0.1"
    assert room.said(plain, way_out=WayOut(elsewhere)) == "ConnectionRefusedError"
    outside = tried("socket.create_connection(('192.0.2.1', 9), 5).close()")
    assert room.said(outside, way_out=WayOut(elsewhere)) == "OSError"


def test_the_proxy_of_this_machine_is_asked(room: Room, server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://robot:word@127.0.0.1:{server}")
    told = room.said(ASKS.format(url="http://somewhere.invalid/x"), way_out=WayOut(elsewhere))
    assert told.startswith("GET http://somewhere.invalid/x HTTP/1.1") and "Proxy-Authorization: Basic " in told
    told = room.said(ASKS.format(url="http://127.0.0.1/x"), way_out=WayOut(elsewhere, direct=False))
    assert told[0] == 403  # not by way of the proxy either


def test_what_is_no_request_is_answered(room: Room) -> None:
    for text in ("GET / HTTP/1.1", "x", "CONNECT :99999 HTTP/1.1", "GET ftp://host/ HTTP/1.1", "CONNECT h:x HTTP/1.1"):
        code = "s = socket.create_connection(('127.0.0.1', 3128), 20)\n"
        code += f"s.sendall({text!r}.encode() + b'\\r\\n\\r\\n')\nfound = s.recv(99).decode().splitlines()[0]"
        assert room.said(code, way_out=WayOut(elsewhere)) == "HTTP/1.1 400 Bad Request", text


def test_a_relay_ends(tmp_path: Path) -> None:
    door = socket.create_server(("127.0.0.1", 0))
    address = door.getsockname()
    relay = Relay(door, lambda inner: connected(str(tmp_path / "nobody")))
    with socket.create_connection(address, 5) as one:
        assert one.recv(1) == b""
    relay.close()
    with pytest.raises(OSError):
        socket.create_connection(address, 5)
    with pytest.raises(OSError):
        connected(str(tmp_path / "nobody"))


def test_where_there_can_be_no_walls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Walling("off", tmp_path).around([]) is None
    assert Walling("off", tmp_path).standing == "limits only (ORRERY_WALLS is off)"
    assert "the home folder lies in /usr" in Walling("auto", Path("/usr/share/orrery")).standing
    monkeypatch.setattr(walls_module, "_refused", lambda: "the kernel says no")
    assert Walling("auto", tmp_path).around([]) is None
    assert Walling("auto", tmp_path).standing == "limits only (the kernel says no)"
    with pytest.raises(NotAllowed):
        Walling("required", tmp_path).around([])


def test_walls_that_cannot_be_put_up_let_nothing_run(room: Room, tmp_path: Path) -> None:
    mark: Callable[[], bool] = (room.own / "ran").exists
    (room.own / f"{PROGRAM}.py").write_text("open('ran', 'w')")
    walls = room.walling.around([], [room.own])
    assert walls is not None
    argv, cwd = [sys.executable, "-m", PROGRAM], tmp_path / "not-there-within"
    cwd.mkdir()
    finished = run(argv, cwd=cwd, limits=LIMITS, warm=room.warm, walls=walls)
    assert finished.code == 127 and "could not be started" in finished.reason and not mark()
    assert run(argv, cwd=room.own, limits=LIMITS, warm=room.warm, walls=walls).ok and mark()


class Busy(WarmStarts):
    """Warm starts that are never ready."""

    def start(self, config: Any, pipes: Any) -> Any:
        self.scratch = Path(config["walls"]["scratch"])
        assert self.scratch.is_dir()
        raise StillImporting


def test_who_is_told_to_ask_again_leaves_nothing(room: Room, tmp_path: Path) -> None:
    busy = Busy(tmp_path / "imported", [PROGRAM])
    for _ in range(3):
        with pytest.raises(StillImporting):
            spawn([sys.executable, "-m", PROGRAM], cwd=room.own, warm=busy, walls=room.walling.around([]))
        assert not busy.scratch.exists()


AS_NOBODY = """
import importlib.util, json, os, sys, tempfile
spec = importlib.util.spec_from_file_location("namespaces", sys.argv[1])
namespaces = importlib.util.module_from_spec(spec)
spec.loader.exec_module(namespaces)
namespaces.apart()
pid = os.fork()
if pid == 0:
    scratch = tempfile.mkdtemp()
    walls = {"read": ["/usr", "/lib", "/lib64"], "write": [], "scratch": scratch, "doors": []}
    namespaces.enclose({**walls, "shared_bytes": 1 << 20})
    open("/tmp/mine", "w").write("x")
    print(json.dumps([sorted(os.listdir("/")), os.getuid(), os.getpid()]))
    sys.stdout.flush()
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_an_ordinary_user_puts_up_the_same_walls(tmp_path: Path) -> None:
    python, setpriv = Path("/usr/bin/python3"), Path("/usr/bin/setpriv")
    if os.getuid() != 0 or not python.exists() or not setpriv.exists():
        pytest.skip("needs root, who can be nobody, and a Python that nobody may run")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        shutil.copy(Path(walls_module.__file__).with_name("namespaces.py"), folder)
        nobody = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c", AS_NOBODY]
        done = subprocess.run([*nobody, f"{folder}/namespaces.py"], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    seen, user, pid = json.loads(done.stdout)
    assert set(seen) <= {"dev", "lib", "lib64", "proc", "sys", "tmp", "usr"} and (user, pid) == (65534, 2)
