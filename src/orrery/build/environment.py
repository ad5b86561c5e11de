"""A locked environment for each set of requirements, with orrery's own packages behind it.

The packages that the project asks for come first and win; orrery's own (Polars, scikit-learn, pytest ...) are there
for all it does not ask for. Where the project leaves a version open, the one that orrery has is preferred, and not
installed a second time. The digest covers everything that can be imported, so it may stand for "the library versions".
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import orrery
from orrery.build.index import configuration, options, places, store, variables
from orrery.build.requirements import PYTHON, Requirements, find, indexes, satisfied, without
from orrery.errors import OrreryError, ProjectFailed
from orrery.pipeline.redaction import Redaction
from orrery.types import digest
from orrery.workers.contained import Finished, Limits, run
from orrery.workers.walls import Walling, own_folders

UV_LIMITS = Limits(wall_seconds=1800, processes=1024)
_UNREACHABLE = ("Failed to fetch", "error sending request", "network was disabled", "dns error", "timed out")


@dataclass(frozen=True)
class Environment:
    """A locked environment.

    Parameters
    ----------
    frozen : digest of Python's version and of all packages that can be imported, with their versions.
    python : its interpreter.
    packages : how many packages can be imported.
    lock : file with the pins of what the project asks for, with hashes where the index gives them.
    cached : whether it was there already.
    seconds : what it took to get.
    """

    frozen: str
    python: Path
    packages: int
    lock: Path
    cached: bool
    seconds: float

    def versions(self) -> dict[str, str]:
        """Return name -> version of every package that can be imported in it."""
        return _effective(self.python.parent.parent)


def lock(
    checkout: Path,
    folder: Path,
    secrets: Mapping[str, str] | None = None,
    of: str = "",
    redaction: Redaction | None = None,
    walling: Walling | None = None,
) -> Environment:
    """Return the environment of a checkout, made if it is not there; safe for many processes at once.

    Parameters
    ----------
    checkout : folder of the project; it is not written to.
    folder : where environments are kept, one sub-folder each.
    secrets : variables that only the build gets, such as the password of an index.
    of : whose they are: what is installed by them is for nobody else.
    redaction : what is secret, and in no output.
    walling : puts walls around what is built, but for the network.

    Raises
    ------
    ProjectFailed
        If the requirements cannot be read, resolved or installed; it says which and why.
    OrreryError
        If the package index cannot be reached: not the project's fault, so worth another try.
    """
    began = time.monotonic()
    wanted = find(checkout)
    key = digest(
        {
            "requirements": dict(wanted.texts),
            "python": [PYTHON, sys.platform, sysconfig.get_platform(), sys.base_prefix],
            "orrery": _installed(own_folders()),
            "folders": [str(path) for path in own_folders()],
            "checkout": str(checkout.resolve()) if wanted.local else "",
            **({"of": of} if secrets else {}),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    place = folder.resolve() / key
    with _alone(place.with_suffix(".lock")):
        cached = _complete(place)
        if not cached:
            _build(place, checkout, wanted, _Uv(place, checkout, secrets or {}, redaction or Redaction(), walling))
        content = json.loads((place / "complete.json").read_text())
    return Environment(
        frozen=content["frozen"],
        python=place / "bin" / "python",
        packages=content["packages"],
        lock=place / "requirements.lock",
        cached=cached,
        seconds=time.monotonic() - began,
    )


def moved(python: str, folder: Path) -> str:
    """Return where an interpreter is now: in the folder of this home, if the one that was written down is not there.

    Parameters
    ----------
    python : ``.../environments/KEY/bin/python`` as an event has it; the home may have been brought back elsewhere.
    folder : where environments are kept.
    """
    path = Path(python)
    here = folder.joinpath(*path.parts[-3:])
    return str(here) if not path.exists() and here.exists() else python


def _build(place: Path, checkout: Path, wanted: Requirements, uv: _Uv) -> None:
    # A venv cannot be renamed, so it is made where it stays; without complete.json it counts as not there.
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    uv.run(["venv", "--no-project", "--no-config", "--python", sys.executable, str(place)], place)
    target = place / "requirements.lock"
    own = _installed(own_folders())
    text = _resolve(checkout, wanted, target, own, uv)
    _plain(target).write_text(text)
    missing = without(target.read_text(), own)
    if missing.strip():
        _plain(place / "missing.txt").write_text(indexes(wanted) + missing)
        command = ["pip", "install", "--no-deps", "--python", str(place / "bin" / "python")]
        uv.run([*command, "-r", str(place / "missing.txt")], checkout, wanted.file)
    lines = [f"import site; site.addsitedir({str(path)!r})" for path in own_folders()]
    lines.append(str(Path(orrery.__file__).parents[1]))
    for folder in (place / "bin", place / "lib", _site(place).parent, _site(place)):
        _plain(folder)
    # read last: appended behind the project's
    _plain(_site(place) / "zz_orrery.pth").write_text("\n".join(lines) + "\n")
    versions = _effective(place)
    content = {"frozen": digest({"python": PYTHON, "packages": versions}), "packages": len(versions)}
    draft = place / "complete.json.new"
    draft.write_text(json.dumps(content))
    draft.replace(place / "complete.json")


def _plain(path: Path) -> Path:
    """Return a path that we write to, unless what was built there has made it lead elsewhere.

    Raises
    ------
    ProjectFailed
        If it has.
    """
    if path.is_symlink():
        raise ProjectFailed(f"What was installed has put a link in the place of {path.name}.")
    return path


def _resolve(checkout: Path, wanted: Requirements, target: Path, own: dict[str, str], uv: _Uv) -> str:
    """Return the text of the lock."""
    if wanted.lines is not None and (pins := satisfied(wanted.lines, own)) is not None:
        return "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))
    if wanted.file == "uv.lock":
        command = ["export", "--frozen", "--no-emit-project", "--format", "requirements-txt"]
        uv.run([*command, "--no-header", "--no-annotate", "--output-file", str(target)], checkout, wanted.file)
    else:
        # uv prefers the versions that it finds in the output file
        target.write_text("".join(f"{name}=={version}\n" for name, version in own.items() if name != "orrery-ml"))
        command = ["pip", "compile", "--generate-hashes", "--no-header", "--no-annotate", "--no-strip-extras"]
        places = ["--python", str(target.with_name("bin") / "python"), "--output-file", str(target)]
        uv.run([*command, *places, wanted.file], checkout, wanted.file)
    return target.read_text()


@dataclass(frozen=True)
class _Uv:
    """Runs uv.

    Parameters
    ----------
    place, checkout : the environment that is made, and what for.
    secrets : variables that it gets besides those of the package index.
    redaction : what is secret.
    walling : puts walls around it, and around what it builds.
    """

    place: Path
    checkout: Path
    secrets: Mapping[str, str]
    redaction: Redaction
    walling: Walling | None

    def run(self, arguments: list[str], cwd: Path, file: str = "") -> Finished:
        """Run a command, for the requirements in a file.

        Raises
        ------
        ProjectFailed, OrreryError
            As :func:`lock`.
        """
        import uv

        words = [uv.find_uv_bin(), *arguments, *options()]
        env = {**variables(), **self.secrets}
        walls, cache = None, store()
        if self.walling is not None:
            cache.mkdir(parents=True, exist_ok=True)
            reads: list[str | Path] = [self.checkout, configuration(), *places(env)]
            walls = self.walling.around(reads, [self.place, cache], network=True)
        if walls:
            env |= {"HOME": str(Path.home()), "UV_CACHE_DIR": str(cache), "UV_LINK_MODE": "copy"}
        finished = run(words, cwd=cwd, env=env, limits=UV_LIMITS, redaction=self.redaction, walls=walls)
        if finished.ok:
            return finished
        said = _words(finished.tail) or finished.reason
        if any(sign in finished.tail for sign in _UNREACHABLE) or not file:
            raise OrreryError(
                f"The environment could not be made: {said}",
                safe="Nothing of the project is at fault, as far as can be seen.",
                todo="See that the package index can be reached; the build is tried again.",
            )
        raise ProjectFailed(
            f"The requirements in {file} cannot be installed: {said}",
            todo=f"Correct {'pyproject.toml, run uv lock' if file == 'uv.lock' else file} and push again.",
        )


def _words(tail: str) -> str:
    """Return uv's explanation as one line, without its drawing."""
    start = max(tail.find("error:"), tail.find("×"), 0)
    text = re.sub(r"(?m)^\s*(?:error:|cause:|Caused by:|[×╰├│─▶ ]+)\s*", "", tail[start:])
    return re.sub(r"\s+", " ", text).strip()[:1000]


def _complete(place: Path) -> bool:
    return (place / "complete.json").exists() and (place / "bin" / "python").exists()


def _site(place: Path) -> Path:
    return place / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _effective(place: Path) -> dict[str, str]:
    return _installed([_site(place), *own_folders()])


def _installed(folders: Iterable[Path]) -> dict[str, str]:
    """Return name -> version by what the folders are called, the first folder first; sorted."""
    found: dict[str, str] = {}
    for folder in folders:
        for path in folder.glob("*.dist-info"):
            name, _, version = path.name.removesuffix(".dist-info").partition("-")
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return dict(sorted(found.items()))


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
