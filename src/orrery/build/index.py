"""Where packages come from: what this machine says to pip is said to uv as well.

uv reads its own ``UV_...`` variables and ``uv.toml``, and neither pip's variables nor its configuration files. A
machine with a mirror or a folder of wheels has often only told pip.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Mapping
from pathlib import Path

FROM_PIP = {
    "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "find-links": ("UV_FIND_LINKS",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "cert": ("SSL_CERT_FILE",),
}
"""Setting of pip -> variable of uv, and its former name."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


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
