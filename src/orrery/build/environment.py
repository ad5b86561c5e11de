"""A locked environment for each set of requirements, with orrery's own packages behind it.

The packages that the project asks for come first and win; orrery's own (Polars, scikit-learn, pytest ...) are there
for all it does not ask for. Where the project leaves a version open, the one that orrery has is preferred, and not
installed a second time; and one that is there as a wheel is preferred to one that would have to be built, for building
is running whatever code came along. What can be had without is kept in a cache for all; what cannot is built with a
cache of the project alone.

The digest covers everything that can be imported, so it may stand for "the library versions".
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orrery
from orrery.build.index import PROXIES, configuration, configurations, options, places, reached, store, variables
from orrery.build.requirements import PYTHON, Requirements, find, indexes, satisfied, without
from orrery.errors import OrreryError, ProjectFailed
from orrery.pipeline.redaction import Redaction
from orrery.types import digest
from orrery.workers.contained import Finished, Limits, run
from orrery.workers.walls import Walling, own_folders
from orrery.workers.way_out import WayOut

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
    contained : how what was built for it was contained; empty where nothing is written down about it.
    """

    frozen: str
    python: Path
    packages: int
    lock: Path
    cached: bool
    seconds: float
    contained: str = ""

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
    built: Path | None = None,
    more: Sequence[str] = (),
) -> Environment:
    """Return the environment of a checkout, made if it is not there; safe for many processes at once.

    Parameters
    ----------
    checkout : folder of the project; it is not written to.
    folder : where environments are kept, one sub-folder each.
    secrets : variables that only the build gets, such as the password of an index.
    of : whose they are: what is installed by them is for nobody else.
    redaction : what is secret, and in no output.
    walling : puts walls around what is built.
    built : folder that keeps what is built from source, of this project alone; by default nothing of it is kept.
    more : hosts and folders that builds reach, besides the package indexes and what requirements name.

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
            own = built or place.with_suffix(".built")
            means = _Uv(place, checkout, wanted, own, secrets or {}, redaction or Redaction(), walling, tuple(more))
            try:
                _build(place, wanted, means)
            finally:
                if built is None:
                    shutil.rmtree(own, ignore_errors=True)
        content = json.loads((place / "complete.json").read_text())
    return Environment(
        frozen=content["frozen"],
        python=place / "bin" / "python",
        packages=content["packages"],
        lock=place / "requirements.lock",
        cached=cached,
        seconds=time.monotonic() - began,
        contained=content.get("contained", ""),
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


def _build(place: Path, wanted: Requirements, uv: _Uv) -> None:
    # A venv cannot be renamed, so it is made where it stays; without complete.json it counts as not there.
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    uv.venv()
    try:
        _install(place, wanted, uv)
    except ProjectFailed:  # perhaps because something has to be built: if not, the same is said again
        uv = replace(uv, builds=True)
        _install(place, wanted, uv)
    lines = [f"import site; site.addsitedir({str(path)!r})" for path in own_folders()]
    lines.append(str(Path(orrery.__file__).parents[1]))
    for folder in (place / "bin", place / "lib", _site(place).parent, _site(place)):
        _plain(folder)
    if (place / "bin" / "python").resolve() != Path(sys.executable).resolve():
        raise ProjectFailed("What was installed has put another interpreter in the place of Python.")
    # read last: appended behind the project's
    _plain(_site(place) / "zz_orrery.pth").write_text("\n".join(lines) + "\n")
    versions = _effective(place)
    content = {"frozen": digest({"python": PYTHON, "packages": versions}), "packages": len(versions)}
    content["contained"] = uv.contained()
    draft = _plain(place / "complete.json.new")
    draft.write_text(json.dumps(content))
    draft.replace(place / "complete.json")


def _plain(path: Path) -> Path:
    """Return a path that we read or write, unless what was built there has made it something else, or lead elsewhere.

    Raises
    ------
    ProjectFailed
        If it has.
    """
    if path.is_symlink() or (path.exists() and not path.is_file() and not path.is_dir()):
        raise ProjectFailed(f"What was installed has put something else in the place of {path.name}.")
    return path


def _install(place: Path, wanted: Requirements, uv: _Uv) -> None:
    """Resolve what is wanted, and install of it what orrery does not have."""
    target, listed = place / "requirements.lock", place / "missing.txt"
    own = _installed(own_folders())
    text = _resolve(wanted, target, own, uv)
    _plain(target).write_text(text)
    missing = without(text, own)
    if missing.strip():
        _plain(listed).write_text(indexes(wanted) + missing)
        uv.run(["pip", "install", "--no-deps", "--python", str(place / "bin" / "python"), "-r", str(listed)])


def _resolve(wanted: Requirements, target: Path, own: dict[str, str], uv: _Uv) -> str:
    """Return the text of the lock."""
    if wanted.lines is not None and (pins := satisfied(wanted.lines, own)) is not None:
        return "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))
    if wanted.file == "uv.lock":
        command = ["export", "--frozen", "--no-emit-project", "--format", "requirements-txt"]
        uv.run([*command, "--no-header", "--no-annotate", "--output-file", str(target)])
    else:
        # uv prefers the versions that it finds in the output file
        _plain(target).write_text(
            "".join(f"{name}=={version}\n" for name, version in own.items() if name != "orrery-ml")
        )
        command = ["pip", "compile", "--generate-hashes", "--no-header", "--no-annotate", "--no-strip-extras"]
        places = ["--python", str(target.with_name("bin") / "python"), "--output-file", str(target)]
        uv.run([*command, *places, wanted.file])
    return _plain(target).read_text()


@dataclass(frozen=True)
class _Uv:
    """Runs uv.

    Parameters
    ----------
    place, checkout, wanted : the environment that is made, and what for.
    own : folder of the project alone: the cache of what is built, and of what is fetched with a secret.
    secrets : variables that it gets besides those of the package index.
    redaction : what is secret.
    walling : puts walls around it, and around what it builds.
    more : hosts and folders that it reaches besides.
    builds : whether it may build from source, which runs code that nobody here has seen.
    """

    place: Path
    checkout: Path
    wanted: Requirements
    own: Path
    secrets: Mapping[str, str]
    redaction: Redaction
    walling: Walling | None
    more: tuple[str, ...] = ()
    builds: bool = False

    def contained(self) -> str:
        """Return how what was built was contained, as versions say it."""
        standing = self.walling.standing if self.walling is not None else "limits only"
        return f"{standing}, {'built from source, with the package indexes' if self.builds else 'nothing was built'}"

    def venv(self) -> None:
        """Make an empty environment; nothing of the project has a part in that."""
        words = ["venv", "--no-project", "--no-config", "--python", sys.executable, str(self.place)]
        env = variables() | {"UV_CACHE_DIR": str(store())}
        self._ended(run([_uv(), *words], cwd=self.place, env=env, limits=UV_LIMITS), "")

    def run(self, arguments: list[str]) -> None:
        """Run a command for the requirements.

        Raises
        ------
        ProjectFailed, OrreryError
            As :func:`lock`.
        """
        words = [_uv(), *arguments, *options(), *([] if self.builds else ["--no-build"])]
        alone = self.builds or bool(self.secrets)
        cache = self.own if alone else store()
        cache.mkdir(parents=True, exist_ok=True)
        said = variables()
        env = {**said, **self.secrets, "UV_CACHE_DIR": str(cache)}
        walls = None
        if self.walling is not None:
            folders = [word for word in self.more if word.startswith("/")]
            reads: list[str | Path] = [self.checkout, configuration(), *configurations(), *places(env), *folders]
            out = WayOut(reached(said, self.wanted.texts, self.more), direct=False)
            walls = self.walling.around(reads, [self.place, cache], way_out=out)
        if walls:
            env = {name: text for name, text in env.items() if name.upper() not in PROXIES}
            env["XDG_CONFIG_HOME"] = str(configuration().parent)
        if walls or alone:
            env["UV_LINK_MODE"] = "copy"  # what is built later must not reach what was built before
        done = run(words, cwd=self.checkout, env=env, limits=UV_LIMITS, redaction=self.redaction, walls=walls)
        self._ended(done, self.wanted.file)

    def _ended(self, finished: Finished, file: str) -> None:
        if finished.ok:
            return
        said = _words(finished.tail) or finished.reason
        if not finished.refused and (any(sign in finished.tail for sign in _UNREACHABLE) or not file):
            raise OrreryError(
                f"The environment could not be made: {said}",
                safe="Nothing of the project is at fault, as far as can be seen.",
                todo="See that the package index can be reached; the build is tried again.",
            )
        if finished.refused:
            hosts = ", ".join(finished.refused)
            raise ProjectFailed(
                f"The requirements in {file} cannot be installed: {said} It asked for {hosts}, which no build reaches.",
                safe="Nothing was sent there.",
                todo=f"Name the index in {file}; one within this network is named by the operator, in ORRERY_PACKAGES.",
            )
        raise ProjectFailed(
            f"The requirements in {file} cannot be installed: {said}",
            todo=f"Correct {'pyproject.toml, run uv lock' if file == 'uv.lock' else file} and push again.",
        )


def _uv() -> str:
    import uv

    return str(uv.find_uv_bin())


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
