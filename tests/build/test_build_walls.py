"""A package whose build turns on the machine: within walls it gets nowhere, without them it would."""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from build.test_build_environment import project, says, wheel
from orrery.build.environment import Environment, lock
from orrery.build.index import reached, store
from orrery.errors import NotAllowed, ProjectFailed
from orrery.workers.walls import NAMESPACES, Walling

pytestmark = pytest.mark.walls
HOOK = """
import json, os, socket, urllib.request, zipfile

def attack():
    found = {}
    def tries(name, what):
        try:
            found[name] = what()
        except Exception as error:
            found[name] = getattr(error, "code", type(error).__name__)
    tries("key", lambda: open("{home}/key").read())
    tries("other", lambda: open("{home}/cache/built/other/wheel").read())
    tries("poisons", lambda: open("{home}/cache/built/other/wheel", "a").write("x"))
    tries("shared", lambda: open("{shared}/mark", "w").write("x"))
    tries("environments", lambda: sorted(os.listdir("{home}/environments")))
    tries("control", lambda: socket.create_connection(("127.0.0.1", {control}), 5).getpeername()[1])
    tries("by proxy", lambda: urllib.request.urlopen("http://127.0.0.1:{control}/", timeout=10).status)
    tries("outside", lambda: urllib.request.urlopen("http://localhost:{outside}/", timeout=10).status)
    tries("index", lambda: urllib.request.urlopen("{index}/simple/evil/", timeout=10).status)
    return found

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name, info = "evil-1.0-py3-none-any.whl", "evil-1.0.dist-info"
    {more}
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        archive.writestr("evil.py", "found = " + repr(attack()))
        archive.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: evil\\nVersion: 1.0\\n")
        wheel = "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        archive.writestr(info + "/WHEEL", wheel)
        lines = [name + ",," for name in ("evil.py", info + "/METADATA", info + "/WHEEL", info + "/RECORD")]
        archive.writestr(info + "/RECORD", "\\n".join(lines))
    return name
"""


def served(folder: Path) -> http.server.ThreadingHTTPServer:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Machine:
    """A home with a key and what another project built, a control plane, and a package index with a bad package."""

    def __init__(self, folder: Path) -> None:
        self.home, self.files = folder / "home", folder / "index" / "simple" / "evil"
        (self.home / "cache" / "built" / "other").mkdir(parents=True)
        self.files.mkdir(parents=True)
        (self.home / "key").write_text("of the home")
        (self.home / "cache" / "built" / "other" / "wheel").write_text("of another")
        self.walling = Walling("auto", self.home)
        self.checkouts = folder
        (folder / "nothing").mkdir()
        servers = [served(folder / "index"), served(folder / "nothing"), served(folder / "nothing")]
        self.index, self.control, self.outside = (one.server_address[1] for one in servers)
        self.servers = servers
        self.url = f"http://127.0.0.1:{self.index}"

    def offer(self, more: str = "pass") -> None:
        """Put the package, as source alone, into the index."""
        facts = {"home": self.home, "shared": store(), "control": self.control, "outside": self.outside}
        text = HOOK
        for name, value in {**facts, "index": self.url, "more": more}.items():
            text = text.replace("{" + name + "}", str(value))
        build = '[build-system]\nrequires = []\nbuild-backend = "hook"\nbackend-path = ["."]\n'
        files = {
            "pyproject.toml": f'[project]\nname = "evil"\nversion = "1.0"\n{build}',
            "hook.py": text,
            "PKG-INFO": "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n",
        }
        with tarfile.open(self.files / "evil-1.0.tar.gz", "w:gz") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(f"evil-1.0/{name}")
                info.size = len(content.encode())
                archive.addfile(info, io.BytesIO(content.encode()))
        (self.files / "index.html").write_text('<a href="evil-1.0.tar.gz">evil-1.0.tar.gz</a>')

    def built(self, walled: bool = True, text: str = "evil\n", more: tuple[str, ...] = ()) -> Environment:
        checkout = project(self.checkouts / "p", txt=text)
        walling = self.walling if walled else None
        own = self.home / "cache" / "built" / "p"
        return lock(checkout, self.home / "environments", of="p", walling=walling, built=own, more=more)


def found(environment: Environment) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(says(environment, "import evil, json; print(json.dumps(evil.found))"))
    return told


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_")) or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    machine = Machine(tmp_path)
    if machine.walling.standing != NAMESPACES:
        pytest.skip(f"not run: {machine.walling.standing}")
    monkeypatch.setenv("PIP_INDEX_URL", f"{machine.url}/simple")
    (tmp_path / "uv-cache").mkdir()
    yield machine
    for server in machine.servers:
        server.shutdown()
        server.server_close()


def test_within_walls_a_build_reaches_the_index_alone(machine: Machine) -> None:
    machine.offer()
    environment = machine.built()
    (only,) = [path.name for path in (machine.home / "environments").iterdir() if path.is_dir()]
    assert found(environment) == {
        "key": "FileNotFoundError",
        "other": "FileNotFoundError",
        "poisons": "FileNotFoundError",
        "shared": "FileNotFoundError",
        "environments": [only],
        "control": "ConnectionRefusedError",
        "by proxy": 403,
        "outside": 403,
        "index": 200,
    }
    assert (machine.home / "cache" / "built" / "other" / "wheel").read_text() == "of another"
    assert environment.contained == f"{NAMESPACES}, built from source, with the package indexes"
    assert machine.built().contained == environment.contained  # of those that were there, too


def test_without_walls_the_same_build_reaches_everything(machine: Machine) -> None:
    machine.offer()
    environment = machine.built(walled=False)
    told = found(environment)
    assert told.pop("environments") != []
    assert told == {
        "key": "of the home",
        "other": "of another",
        "poisons": 1,
        "shared": 1,
        "control": machine.control,
        "by proxy": 200,
        "outside": 200,
        "index": 200,
    }
    assert environment.contained == "limits only, built from source, with the package indexes"


def test_what_need_not_be_built_is_fetched_once_for_all_and_runs_nothing(machine: Machine) -> None:
    machine.offer()
    wheel(machine.files, "evil", "0.9", "found = 'a wheel'\n")
    with (machine.files / "index.html").open("a") as page:
        page.write('<a href="evil-0.9-py3-none-any.whl">evil-0.9-py3-none-any.whl</a>')
    environment = machine.built()
    assert found(environment) == "a wheel" and environment.versions()["evil"] == "0.9"
    assert environment.contained == f"{NAMESPACES}, nothing was built"
    assert not (machine.home / "cache" / "built" / "p").exists()
    assert list(store().glob("archive-*/*"))
    pinned = machine.built(text="evil==1.0\n")  # who wants the source gets it
    assert found(pinned)["key"] == "FileNotFoundError" and (machine.home / "cache" / "built" / "p").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("[os.remove(x) or os.symlink('{home}/cache/built/p/python', x) for x in PYTHONS]", "another interpreter"),
        ("[os.mkfifo(x + '/zz_orrery.pth') for x in PACKAGES]", "in the place of zz_orrery.pth"),
        (
            "[os.symlink('{home}/key', os.path.dirname(x) + '/complete.json.new') for x in LOCKS]",
            "in the place of complete.json.new",
        ),
    ],
)
def test_what_a_build_puts_in_the_place_of_ours_is_not_followed(machine: Machine, more: str, words: str) -> None:
    lists = f"import glob; PYTHONS = glob.glob('{machine.home}/environments/*/bin/python')"
    lists += f"; LOCKS = glob.glob('{machine.home}/environments/*/requirements.lock')"
    lists += f"; PACKAGES = glob.glob('{machine.home}/environments/*/lib/*/site-packages')"
    machine.offer(f"{lists}; {more.replace('{home}', str(machine.home))}")
    with pytest.raises(ProjectFailed, match=words):
        machine.built()
    assert (machine.home / "key").read_text() == "of the home"
    assert not list((machine.home / "environments").glob("*/complete.json"))


def test_an_index_within_this_network_is_the_operators_to_name(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.offer()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{machine.outside}/simple")
    asks = f"--extra-index-url {machine.url}/simple\nevil\n"
    with pytest.raises(
        ProjectFailed, match=f"It asked for 127.0.0.1:{machine.index}, which no build reaches"
    ) as caught:
        machine.built(text=asks)
    assert "ORRERY_PACKAGES" in caught.value.todo
    assert found(machine.built(text=asks, more=(f"127.0.0.1:{machine.index}",)))["key"] == "FileNotFoundError"


def test_what_requirements_name_is_reached_where_it_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        "packages.example.org": "93.184.216.34",
        "within.example.org": "10.0.0.7",
        "mirror.example.org": "10.0.0.8",
    }

    def resolves(host: str, port: int, **more: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[host], port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolves)
    project = (
        '[project]\nurls = {home = "https://blog.example.org"}\ndependencies = ["a @ https://within.example.org/a"]\n'
    )
    texts = {"requirements.txt": "--extra-index-url https://robot:${SECRET_X}@packages.example.org/s\n"}
    may = reached({"UV_INDEX_URL": "https://mirror.example.org/x"}, texts | {"pyproject.toml": project}, ())
    assert may("mirror.example.org", 443) == ["10.0.0.8"]
    assert may("packages.example.org", 443) == ["93.184.216.34"]
    for host, port in (("within.example.org", 443), ("packages.example.org", 80), ("blog.example.org", 443)):
        with pytest.raises(NotAllowed):
            may(host, port)
    assert ("pypi.org", 443) in reached({}, {}, ()).ours and ("pypi.org", 443) not in may.ours
    assert ("files.pythonhosted.org", 443) in reached({}, {}, ("h:1",)).ours and ("h", 1) in reached(
        {}, {}, ("h:1",)
    ).ours


def test_a_project_that_computes_what_it_needs_shares_no_environment(tmp_path: Path) -> None:
    from orrery.build.requirements import find

    text = '[project]\nname = "p"\nversion = "0"\ndynamic = ["dependencies"]\n'
    assert find(project(tmp_path / "p", toml=text)).local
    assert not find(
        project(tmp_path / "q", toml=text.replace("dynamic", "keywords") + 'dependencies = ["six"]\n')
    ).local
