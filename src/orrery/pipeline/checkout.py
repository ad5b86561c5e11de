"""A project's modules, loaded from one checkout folder and kept apart from every other checkout.

Two versions of a project are often loaded by one process (champion and candidate, a re-run of an old version). Python
keeps modules by name, so the second ``import cleaning`` would silently give the first version's. Here each checkout has
its own modules; they stand in :data:`sys.modules` only while that checkout is active.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType

from orrery.errors import NotFound, NotUnderstood, ProjectFailed

_one_at_a_time = threading.RLock()


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles from the source, always: a ``.pyc`` of the same second and size may belong to an older text."""

    def __init__(self, fullname: str, path: str, checkout: Checkout) -> None:
        super().__init__(fullname, path)
        self.checkout = checkout

    def get_code(self, fullname: str) -> CodeType:
        source = Path(self.path).read_bytes()
        self.checkout.sources[self.path] = source
        code: CodeType = compile(source, self.path, "exec", dont_inherit=True)
        return code


class Checkout(importlib.abc.MetaPathFinder):
    """The modules of one checkout folder.

    Parameters
    ----------
    root
        The folder; its modules and packages can be imported by each other as if it were the working directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.modules: dict[str, ModuleType] = {}
        self.sources: dict[str, bytes] = {}
        """File path to the text that was compiled, which is what keys are made of (the file may change later)."""
        self._own = {entry.stem for entry in self.root.glob("*.py")} | {
            entry.name for entry in self.root.iterdir() if entry.is_dir() and self._is_package(entry)
        }

    def _is_package(self, folder: Path) -> bool:
        if not folder.name.isidentifier():
            return False
        if (folder / "__init__.py").is_file():
            return True
        # A folder without __init__.py is a package only if nothing installed has that name, as in Python itself.
        return next(folder.glob("*.py"), None) is not None and (
            importlib.machinery.PathFinder.find_spec(folder.name) is None
        )

    def owns(self, module_name: str) -> bool:
        """Whether `module_name` is a module of this checkout, loaded or not."""
        return module_name.partition(".")[0] in self._own

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module of the checkout (the import system calls this)."""
        if not self.owns(fullname):
            return None
        place = self.root.joinpath(*fullname.split("."))
        init, file = place / "__init__.py", place.with_suffix(".py")
        if init.is_file():
            return importlib.util.spec_from_file_location(
                fullname,
                init,
                loader=_Loader(fullname, str(init), self),
                submodule_search_locations=[str(place)],
            )
        if file.is_file():
            return importlib.util.spec_from_file_location(fullname, file, loader=_Loader(fullname, str(file), self))
        if place.is_dir():
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(place)]
            return spec
        return None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the checkout's modules importable by their own names; other checkouts wait.

        One checkout is active at a time in a process, so runs of different checkouts follow each other; processes do
        not wait for each other. May be nested in one thread.
        """
        with _one_at_a_time:
            others = self._taken()
            sys.modules.update(self.modules)
            root = str(self.root)
            # After the finders of built-in and frozen modules, as the first folder of sys.path would be; sys.path
            # itself is extended for the processes that a step starts.
            place = next(
                (
                    i
                    for i, finder in enumerate(sys.meta_path)
                    if finder is importlib.machinery.PathFinder or isinstance(finder, Checkout)
                ),
                len(sys.meta_path),
            )
            sys.meta_path.insert(place, self)
            sys.path.insert(0, root)
            try:
                yield
            finally:
                sys.path.remove(root)
                sys.meta_path.remove(self)
                self.modules = self._taken()
                sys.modules.update(others)

    def _taken(self) -> dict[str, ModuleType]:
        """Take the modules with the names of this checkout out of those that Python knows, which are thousands."""
        own = self._own
        if own.isdisjoint(sys.modules):
            return {}
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in own}

    def load(self, name: str) -> ModuleType:
        """Import one module of the checkout, if it is not there yet."""
        with self.active():
            return importlib.import_module(name)


def checkout_of(module: ModuleType) -> Checkout:
    """The checkout that `module` was loaded from.

    Raises
    ------
    NotUnderstood
        The module did not come from :func:`load_module`.
    """
    loader = getattr(module.__spec__, "loader", None)
    if isinstance(loader, _Loader):
        return loader.checkout
    raise NotUnderstood(f"The module {module.__name__} was not loaded from a checkout folder.", todo="Use load_module.")


def load_module(path: Path, name: str = "pipeline") -> ModuleType:
    """Load a module of a project, and what it imports of the same project, freshly from a checkout folder.

    Parameters
    ----------
    path
        The checkout folder.
    name
        The module's name, dotted for a module in a package.

    Raises
    ------
    NotFound
        The folder has no such module.
    ProjectFailed
        The module cannot be imported; the cause is chained.
    """
    if not Path(path).is_dir():
        raise NotFound(f"There is no folder {path}.")
    checkout = Checkout(Path(path))
    if checkout.find_spec(name) is None:
        wanted = name.replace(".", "/") + ".py"
        raise NotFound(
            f"There is no {wanted} in {checkout.root}.", todo=f"Write it, or name another module than {name}."
        )
    try:
        return checkout.load(name)
    except (Exception, SystemExit) as error:
        raise ProjectFailed(
            f"The project's module {name} could not be imported: {describe(error, checkout.root)}",
            safe="Nothing was run.",
        ) from error


def describe(error: BaseException, root: Path) -> str:
    """Say an error of the project's code in one line, with the project's own line that raised it."""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, SyntaxError):
        return f"{text}."
    place, step = "", error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if file.startswith(str(root)):
            place = f" ({Path(file).relative_to(root)}, line {step.tb_lineno})"
        step = step.tb_next
    return f"{text}{place}."
