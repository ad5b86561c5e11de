"""What a project says that it needs: in a lock file, a list of requirements, its ``pyproject.toml``, or nowhere."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from orrery.errors import ProjectFailed

_INCLUDE = re.compile(r"^\s*(?:-r|-c|--requirement|--constraint)[ =]\s*(\S+)")
_INDEX = re.compile(r"(?:-i|--index-url|--extra-index-url)[\s=]")
_LOCAL = re.compile(r"^\s*(?:-e|--editable|\.|/|file:)|@\s*(?:file:|\.)")


@dataclass(frozen=True)
class Requirements:
    """The requirements of a checkout.

    Parameters
    ----------
    file : the file that names them, relative to the checkout; empty where none does.
    texts : name of each file that counts -> its text.
    lines : the requirements one by one; None where only uv can tell them.
    local : whether more of the checkout counts than these files: some are folders of it, or it computes what it needs.
    """

    file: str
    texts: Mapping[str, str]
    lines: tuple[str, ...] | None
    local: bool


def find(checkout: Path) -> Requirements:
    """Read what a checkout needs.

    The first of these counts: ``uv.lock`` with ``pyproject.toml``, ``requirements.lock``, ``requirements.txt``,
    ``[project] dependencies`` of ``pyproject.toml``.

    Raises
    ------
    ProjectFailed
        If a file cannot be read.
    """
    project = checkout / "pyproject.toml"
    if (checkout / "uv.lock").exists() and project.exists():
        texts = {name: _text(checkout / name) for name in ("uv.lock", "pyproject.toml")}
        return Requirements("uv.lock", texts, None, local=False)
    for name in ("requirements.lock", "requirements.txt"):
        if (checkout / name).exists():
            return _listed(checkout, name)
    if not project.exists():
        return Requirements("", {}, (), local=False)
    text = _text(project)
    try:
        table = tomllib.loads(text).get("project", {})
    except tomllib.TOMLDecodeError as error:
        raise ProjectFailed(f"pyproject.toml cannot be read: {error}.", todo="Correct it and push again.") from None
    if not table.get("dependencies") and "dependencies" not in table.get("dynamic", []):
        return Requirements("", {}, (), local=False)
    lines = None if "dynamic" in table else tuple(table["dependencies"])
    return Requirements("pyproject.toml", {"pyproject.toml": text}, lines, local=lines is None or _is_local(lines))


def satisfied(lines: tuple[str, ...], installed: Mapping[str, str]) -> dict[str, str] | None:
    """Return the pins that installed packages answer the requirements with; None if they do not answer all.

    Examples
    --------
    >>> satisfied(("scikit-learn>=1.5",), {"scikit-learn": "1.7.2"})
    {'scikit-learn': '1.7.2'}
    >>> satisfied(("scikit-learn<1.5",), {"scikit-learn": "1.7.2"}) is None
    True
    """
    pins: dict[str, str] = {}
    for line in lines:
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            return None
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        name = canonicalize_name(wanted.name)
        version = installed.get(name)
        if version is None or wanted.extras or wanted.url or not wanted.specifier.contains(version):
            return None
        pins[name] = version
    return pins


def without(lock: str, installed: Mapping[str, str]) -> str:
    """Return the part of a lock that is not installed already in just that version."""
    kept = []
    for entry in lock.replace("\\\n", "\0").splitlines():
        name, _, rest = entry.partition("==")
        words = rest.replace("\0", " ").split()
        if not (words and installed.get(canonicalize_name(name.strip())) == words[0].rstrip(";")):
            kept.append(entry.replace("\0", "\\\n"))
    return "\n".join(kept) + "\n"


def indexes(wanted: Requirements) -> str:
    """Return the lines that name further package indexes: a lock does not repeat them.

    They are as they were written, with the names of variables in place of passwords.

    Examples
    --------
    >>> texts = {"requirements.txt": "--extra-index-url https://robot:${SECRET_INDEX}@packages.example.org/simple"}
    >>> indexes(Requirements("requirements.txt", texts, None, False)).strip()
    '--extra-index-url https://robot:${SECRET_INDEX}@packages.example.org/simple'
    """
    lines = [line.strip() for text in wanted.texts.values() for line in text.splitlines()]
    return "".join(f"{line}\n" for line in lines if _INDEX.match(line))


def _listed(checkout: Path, name: str) -> Requirements:
    texts: dict[str, str] = {}
    lines: list[str] = []
    plain, waiting = True, [name]
    while waiting:
        here = waiting.pop()
        if here in texts:
            continue
        texts[here] = _text(checkout / here)
        for raw in texts[here].replace("\\\n", " ").splitlines():
            line = re.sub(r"(^|\s)#.*", "", raw).strip()
            if include := _INCLUDE.match(line):
                plain = False
                target = (checkout / here).parent / include[1]
                if "://" not in include[1] and target.resolve().is_relative_to(checkout.resolve()):
                    waiting.append(str(target.resolve().relative_to(checkout.resolve())))
            elif line:
                plain = plain and not line.startswith("-")
                lines.append(re.sub(r"\s+--hash=\S+", "", line))
    return Requirements(name, texts, tuple(lines) if plain else None, local=_is_local(tuple(lines)))


def _is_local(lines: tuple[str, ...]) -> bool:
    return any(_LOCAL.search(line) for line in lines)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectFailed(
            f"{path.name} cannot be read: {error}.", todo="Correct the requirements and push again."
        ) from None


PYTHON = ".".join(str(part) for part in sys.version_info[:3])
"""Version of the interpreter that environments are made with."""
