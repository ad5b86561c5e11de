from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import polars
import pytest

from orrery.build.environment import Environment, lock
from orrery.build.index import options, variables
from orrery.errors import OrreryError, ProjectFailed
from orrery.pipeline.redaction import Redaction

DOCS = Path(__file__).parents[2] / "docs"


def wheel(folder: Path, name: str, version: str, text: str, requires: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": text,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, content in files.items():
        seal = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={seal},{len(content)}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, content in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(path, content)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels is the whole index, and pip was told about it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel(folder, "planets", "1.0", "count = 9\n")
    wheel(folder, "planets", "2.0", "count = 8\n", requires="moons")
    wheel(folder, "moons", "0.5", "count = 1\n")
    wheel(folder, "polars", "0.0.1", "mine = True\n")
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return folder


def project(place: Path, **files: str) -> Path:
    place.mkdir(exist_ok=True)
    for name, text in files.items():
        (place / {"lock": "requirements.lock", "txt": "requirements.txt", "toml": "pyproject.toml"}[name]).write_text(
            text
        )
    return place


def says(environment: Environment, code: str) -> str:
    run = subprocess.run([environment.python, "-c", code], capture_output=True, text=True, cwd="/")
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize(
    "files",
    [
        {"txt": "planets<2\n"},
        {"lock": "planets==1.0\n", "txt": "planets==2.0\n"},
        {"toml": '[project]\nname = "p"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["planets<2"]\n'},
        {"toml": "[tool.x]\n", "txt": "-r more.txt\n"},
    ],
    ids=["requirements.txt", "requirements.lock wins", "pyproject.toml", "included file"],
)
def test_what_the_project_asks_for_is_there(tmp_path: Path, wheels: Path, files: Mapping[str, str]) -> None:
    checkout = project(tmp_path / "p", **files)
    (checkout / "more.txt").write_text("planets==1.0  # as before\n")
    environment = lock(checkout, tmp_path / "environments")
    assert says(environment, "import planets; print(planets.count)") == "9"
    text = environment.lock.read_text()
    assert text.startswith("planets==1.0") and "--hash=sha256:" in text
    assert environment.versions()["planets"] == "1.0"
    assert environment.packages == len(environment.versions()) > 50
    assert not environment.cached


def test_uv_lock(tmp_path: Path, wheels: Path) -> None:
    checkout = project(
        tmp_path / "p",
        toml='[project]\nname = "p"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["planets"]\n',
    )
    import uv

    subprocess.run(
        [uv.find_uv_bin(), "lock", "-q", *options()], cwd=checkout, env={**os.environ, **variables()}, check=True
    )
    environment = lock(checkout, tmp_path / "environments")
    assert says(environment, "import planets, moons; print(planets.count, moons.count)") == "8 1"


def test_orrerys_packages_stand_behind_the_projects(tmp_path: Path, wheels: Path) -> None:
    plain = lock(project(tmp_path / "plain"), tmp_path / "environments")
    mine = lock(project(tmp_path / "mine", txt="polars==0.0.1\n"), tmp_path / "environments")
    assert says(plain, "import polars, croniter, orrery; print(polars.__version__)") == polars.__version__
    assert says(mine, "import polars, croniter, orrery; print(polars.mine)") == "True"
    assert mine.versions()["polars"] == "0.0.1"
    assert plain.frozen != mine.frozen


def test_nothing_is_asked_of_an_index_where_orrery_has_it(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")  # now no index at all
    environment = lock(project(tmp_path / "p", txt="polars>=1\nscikit-learn\n"), tmp_path / "environments")
    assert f"polars=={polars.__version__}\n" in environment.lock.read_text()
    assert says(environment, "import polars; print(polars.__version__)") == polars.__version__
    with pytest.raises(OrreryError):
        lock(project(tmp_path / "q", txt="planets\n"), tmp_path / "environments")


def test_the_same_requirements_are_built_once(tmp_path: Path, wheels: Path) -> None:
    folder = tmp_path / "environments"
    first = lock(project(tmp_path / "p", txt="planets==1.0\n"), folder)
    again = lock(project(tmp_path / "another-commit", txt="planets==1.0\n"), folder)
    other = lock(project(tmp_path / "p", txt="planets==2.0\n"), folder)
    assert (again.cached, again.frozen, again.python) == (True, first.frozen, first.python)
    assert not other.cached and other.frozen != first.frozen


def test_the_digest_is_about_content(tmp_path: Path, wheels: Path) -> None:
    """Two ways to write the same need are two folders, and one set of versions."""
    one = lock(project(tmp_path / "p", txt="planets==1.0\n"), tmp_path / "environments")
    two = lock(project(tmp_path / "q", txt="planets<=1.0 # the old one\n"), tmp_path / "environments")
    assert one.python != two.python and one.frozen == two.frozen


def test_many_at_once_build_it_once(tmp_path: Path, wheels: Path) -> None:
    checkout, made = project(tmp_path / "p", txt="planets==1.0\n"), []
    threads = [
        threading.Thread(target=lambda: made.append(lock(checkout, tmp_path / "environments"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.cached for each in made) == [False, True, True, True]


@pytest.mark.parametrize("delay", [0.05, 0.15, 0.3])
def test_a_half_made_environment_is_made_again(tmp_path: Path, wheels: Path, delay: float) -> None:
    checkout, folder = project(tmp_path / "p", txt="planets==1.0\n"), tmp_path / "environments"
    code = "import sys, pathlib; from orrery.build.environment import lock; print('.', flush=True)\n"
    code += "lock(*map(pathlib.Path, sys.argv[1:]))"
    with subprocess.Popen([sys.executable, "-c", code, str(checkout), str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    environment = lock(checkout, folder)
    assert says(environment, "import planets; print(planets.count)") == "9"


def test_an_environment_without_its_marker_is_made_again(tmp_path: Path, wheels: Path) -> None:
    checkout, folder = project(tmp_path / "p", txt="planets==1.0\n"), tmp_path / "environments"
    made = lock(checkout, folder)
    (made.python.parent.parent / "complete.json").unlink()
    next(made.python.parent.parent.glob("lib/*/site-packages/planets.py")).unlink()
    again = lock(checkout, folder)
    assert not again.cached
    assert says(again, "import planets; print(planets.count)") == "9"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"txt": "planets==7\n"}, "requirements.txt cannot be installed: .*planets==7"),
        ({"txt": "nosuch-thing\n"}, "nosuch-thing was not found"),
        ({"txt": "planets=1==\n"}, "Couldn't parse requirement in `requirements.txt`"),
        ({"toml": "[project\n"}, "pyproject.toml cannot be read"),
        ({"txt": "planets==2.0\nmoons>1\n"}, "moons>1"),
    ],
)
def test_requirements_that_cannot_be_met_are_explained(
    tmp_path: Path, wheels: Path, files: Mapping[str, str], words: str
) -> None:
    with pytest.raises(ProjectFailed, match=words) as caught:
        lock(project(tmp_path / "p", **files), tmp_path / "environments")
    assert "push again" in caught.value.todo
    assert "╰" not in str(caught.value) and "\n" not in str(caught.value)


def test_an_index_that_is_away_is_not_the_projects_fault(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(OrreryError, match="tried again") as caught:
        lock(project(tmp_path / "p", txt="planets\n"), tmp_path / "environments")
    assert not isinstance(caught.value, ProjectFailed)


def test_pips_configuration_reaches_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nextra-index-url = https://one/simple\n  https://two/simple\nfind-links = /a /b\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror/simple")
    found = variables()
    assert found["UV_DEFAULT_INDEX"] == "https://mirror/simple"
    assert found["UV_INDEX"] == "https://one/simple https://two/simple"
    assert found["UV_FIND_LINKS"] == "/a,/b"
    monkeypatch.setenv("UV_INDEX_URL", "https://uv/simple")
    assert "UV_DEFAULT_INDEX" not in variables(), "what is said to uv itself wins"


def test_the_checkout_is_not_written_to(tmp_path: Path, wheels: Path) -> None:
    checkout = project(tmp_path / "p", txt="planets\n")
    lock(checkout, tmp_path / "environments")
    assert [path.name for path in checkout.iterdir()] == ["requirements.txt"]
    marker = next((tmp_path / "environments").glob("*/complete.json"))
    assert json.loads(marker.read_text())["packages"] > 50


# --- an index behind a password ----------------------------------------------------------------------------------


@contextlib.contextmanager
def guarded(folder: Path, password: str) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder of wheels as a package index that asks for name and password; gives its place and what it saw."""
    asked: list[str] = []
    expected = "Basic " + base64.b64encode(f"robot:{password}".encode()).decode()

    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("authorization") != expected:
                asked.append("refused")
                return self._say(401, b"", ("WWW-Authenticate", 'Basic realm="packages"'))
            kind, _, name = self.path.strip("/").partition("/")
            files = sorted(folder.glob("*.whl"))
            if kind == "files":
                asked.append(name)
                return self._say(200, (folder / Path(name).name).read_bytes())
            links = [f'<a href="/files/{one.name}">{one.name}</a>' for one in files if one.name.startswith(f"{name}-")]
            return self._say(200 if links else 404, "".join(links).encode(), ("Content-Type", "text/html"))

        def _say(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
            self.send_response(status)
            for one in (*headers, ("Content-Length", str(len(body)))):
                self.send_header(*one)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_an_index_is_opened_with_a_secret_of_the_project(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of docs/secrets.md, word for word but for the address."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"file://{wheels / 'nothing'}")
    (wheels / "nothing").mkdir()
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    password = "four+moons/of:Jupiter"
    documented = re.search(r"`(--extra-index-url \S+)`", (DOCS / "secrets.md").read_text())
    assert documented is not None and "${SECRET_INDEX}" in documented[1]
    with guarded(wheels, password) as (place, asked):
        line = documented[1].replace("https://", "http://").replace("packages.example.org", place)
        asks = project(tmp_path / "p", txt=f"{line}\nplanets<2\n")
        value = quote(password, safe="")
        redaction = Redaction([value, password])
        for secrets in ({}, {"SECRET_INDEX": "of-somebody-else"}):
            with pytest.raises(OrreryError) as caught:
                lock(asks, tmp_path / "environments", secrets, "tides", Redaction(list(secrets.values())))
            assert "somebody" not in str(caught.value) and not [one for one in asked if one != "refused"]
        made = lock(asks, tmp_path / "environments", {"SECRET_INDEX": value}, "tides", redaction)
        assert says(made, "import planets; print(planets.count)") == "9"
        assert [one for one in asked if one != "refused"] == ["planets-1.0-py3-none-any.whl"]
    for path in (tmp_path / "environments").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert value.encode() not in content and password.encode() not in content, path
