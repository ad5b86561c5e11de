"""Where packages come from: what this machine says to pip is said to uv as well.

uv reads its own ``UV_...`` variables and ``uv.toml``, and neither pip's variables nor its configuration files. A
machine with a mirror or a folder of wheels has often only told pip.

What builds may reach follows from that: the hosts of these indexes, and those that a project's requirements name.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orrery.access.outgoing import resolved
from orrery.errors import NotAllowed

FROM_PIP = {
    "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "find-links": ("UV_FIND_LINKS",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "cert": ("SSL_CERT_FILE",),
}
"""Setting of pip -> variable of uv, and its former name."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

DEFAULT = "https://pypi.org/simple"
FILES_OF = {
    "pypi.org": "files.pythonhosted.org",
    "test.pypi.org": "test-files.pythonhosted.org",
    "download.pytorch.org": "download-r2.pytorch.org",
}
"""Indexes whose files are at another host."""
_URL = re.compile(r"""(?:https?|git\+https)://[^\s"'<>,;]+""")

Place = tuple[str, int]


@dataclass(frozen=True)
class Reached:
    """Says what a build may connect to.

    Parameters
    ----------
    ours : hosts and ports that this machine's configuration names: whatever address they have.
    theirs : those that the requirements of the project name: public addresses alone.
    """

    ours: frozenset[Place]
    theirs: frozenset[Place]

    def __call__(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host.

        Raises
        ------
        NotAllowed
            If it is none of these, or within this network and only the project names it.
        OrreryError
            If it has none.
        """
        if (host, port) in self.ours:
            return resolved(host, port, private=True)
        if (host, port) not in self.theirs:
            raise NotAllowed(f"{host}:{port} is none of the package indexes that a build reaches.")
        return resolved(host, port)


def reached(said: Mapping[str, str], texts: Mapping[str, str], more: Sequence[str]) -> Reached:
    """Return what a build may connect to.

    Parameters
    ----------
    said : variables of uv.
    texts : the files with the requirements of the project.
    more : hosts that the settings name, with or without a port.
    """
    asked = [said[name] for name in said if name.startswith("UV_")]
    if not said.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}:
        asked.append(DEFAULT)
    for path in configurations():
        if path.is_file():
            asked.append(path.read_text(errors="replace"))
    ours = {_place(f"https://{host}") for host in more if not host.startswith("/")}
    return Reached(frozenset(_named(asked) | ours), frozenset(_named(map(_required, texts, texts.values()))))


def configurations() -> list[Path]:
    """Return the files with uv's own configuration: of this user, and of this machine."""
    return [configuration() / "uv.toml", Path("/etc/xdg/uv/uv.toml"), Path("/etc/uv/uv.toml")]


def _required(name: str, text: str) -> str:
    """Return the part of a file that says what is needed, and from where."""
    if Path(name).name != "pyproject.toml":
        return text
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return ""  # uv says what is wrong with it
    project = table.get("project", {})
    kept = [project.get("dependencies"), project.get("optional-dependencies"), table.get("tool", {}).get("uv")]
    return json.dumps([*kept, table.get("build-system"), table.get("dependency-groups")], default=str)


def _named(texts: Iterable[str]) -> set[Place]:
    """Return the hosts and ports of all addresses in texts, and of where their files are.

    Examples
    --------
    >>> sorted(_named(["--extra-index-url https://robot:${SECRET_X}@packages.example.org/simple http://[::1]:81/x"]))
    [('::1', 81), ('packages.example.org', 443)]
    >>> sorted(_named(["https://pypi.org/simple"]))
    [('files.pythonhosted.org', 443), ('pypi.org', 443)]
    """
    found = set()
    for text in texts:
        for url in _URL.findall(text):
            try:
                found.add(_place(url))
            except ValueError:
                continue  # uv says what is wrong with it
    return found | {(FILES_OF[host], port) for host, port in found if host in FILES_OF}


def _place(url: str) -> Place:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)


def variables() -> dict[str, str]:
    """Return the variables that make uv use this machine's package index; what is said to uv itself wins."""
    found = {name: text for name, text in os.environ.items() if name.startswith("UV_") or name.upper() in PROXIES}
    found |= {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}
    said = _pip()
    for setting, names in FROM_PIP.items():
        text = said.get(setting, "")
        if text and not any(name in os.environ for name in names):
            # uv parts find-links with commas, the rest with blanks
            found[names[0]] = ",".join(text.split()) if setting == "find-links" else " ".join(text.split())
    if "UV_INDEX" in found and "UV_INDEX" not in os.environ:
        # pip takes the best of all indexes, and whoever configured it expects that
        found.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return found


def store() -> Path:
    """Return the folder in which uv keeps what it has fetched and built."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("UV_CACHE_DIR") or Path(cache, "uv"))


def configuration() -> Path:
    """Return the folder of uv's own configuration, of this user."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "uv")


def places(said: Mapping[str, str]) -> list[str]:
    """Return the files and folders that variables name: indexes and wheels of this machine."""
    words = [word.removeprefix("file://") for text in said.values() for word in text.replace(",", " ").split()]
    return [word for word in words if os.path.isabs(word) and os.path.exists(word)]


def options() -> list[str]:
    """Return what uv takes only on its command line: that no index shall be asked at all."""
    refused = _pip().get("no-index", "").lower() in ("1", "true", "yes", "on")
    return ["--no-index"] if refused and not os.environ.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} else []


def _pip() -> dict[str, str]:
    said: dict[str, str] = {}
    for path in _files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip itself will complain; it must not keep a build from running
        for section in ("global", "install"):
            if parser.has_section(section):
                said |= {name.replace("_", "-"): text for name, text in parser.items(section)}
    for name in (*FROM_PIP, "no-index"):
        if text := os.environ.get("PIP_" + name.upper().replace("-", "_")):
            said[name] = text
    return said


def _files() -> list[Path]:
    if os.environ.get("PIP_CONFIG_FILE") == os.devnull:
        return []
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"), home / ".pip/pip.conf", config / "pip/pip.conf"]
    files.append(Path(sys.prefix) / "pip.conf")
    if name := os.environ.get("PIP_CONFIG_FILE"):
        files.append(Path(name))
    return files
