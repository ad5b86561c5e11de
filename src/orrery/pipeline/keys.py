"""What a step's result depends on in the project's code, as digests.

Functions and classes count by their syntax, module constants by their value at the time of use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePath
from types import ModuleType
from typing import Any

from orrery.errors import Damaged, NotUnderstood
from orrery.pipeline.checkout import Checkout, checkout_of
from orrery.pipeline.content import file_digest, told
from orrery.pipeline.reach import Reach, Walk
from orrery.pipeline.source import Source, could_be_file
from orrery.pipeline.values import digest


class ProjectCode:
    """The code of one checkout, as keys see it.

    Parameters
    ----------
    module
        The pipeline module, loaded by :func:`orrery.pipeline.checkout.load_module`.
    """

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.checkout: Checkout = checkout_of(module)
        self._sources: dict[str, Source] = {}
        self._reached: dict[tuple[int, bool], tuple[Any, Reach]] = {}
        self._in_progress: set[int] = set()
        self._files: list[str] | None = None

    def source(self, filename: str) -> Source | None:
        """The syntax of a file of the project, or None for a file that is not the project's."""
        if filename not in self._sources:
            text = self.checkout.sources.get(filename)
            if text is None:
                return None
            self._sources[filename] = Source(text, filename)
        return self._sources[filename]

    def is_project(self, module: ModuleType) -> bool:
        """Whether a module was loaded from this checkout."""
        return self.checkout.modules.get(module.__name__) is module

    def label(self, module_name: str, name: str) -> str:
        """A name as the reader of the pipeline module would write it."""
        return name if module_name == self.module.__name__ else f"{module_name}.{name}"

    def reach(self, thing: Any, *, step: bool = False) -> Reach:
        """Everything that a function or class of the project reaches; the checkout must be active.

        For a step its own defaults are left out: they are parameters, and keyed by their values.
        """
        place = (id(thing), step)
        if place not in self._reached:
            walk = Walk(self)
            label = self.label(thing.__module__, thing.__qualname__)
            walk.value(label, thing, lambda: thing, without_defaults=step)
            self._reached[place] = thing, walk.finished()
        return self._reached[place][1]

    def parts(self, reach: Reach) -> dict[str, str]:
        """What a reach comes to now: label to digest, with constants shown as ``digest value``.

        Raises
        ------
        NotUnderstood
            Something cannot be keyed.
        """
        if reach.unkeyed:
            raise NotUnderstood(reach.unkeyed[0])
        parts = dict(reach.fixed)
        for label, look_up in reach.live.items():
            try:
                value = look_up()
                parts[label] = told(value, self)
            except NotUnderstood as error:
                raise NotUnderstood(f"{label}: {error.what}") from error
        for text in reach.files:
            parts.update({f"file {name}": found for name, found in self.files(text).items()})
        return parts

    def files(self, text: str) -> dict[str, str]:
        """Content digests of the files that a text in the code may name.

        It may be a path, from here or from the checkout; or the end of the path of a file of the project, because code
        joins such from pieces: ``Path(__file__).parent / "tables" / "routes.csv"``.
        """
        if not could_be_file(text):
            return {}
        for place in (text, str(self.checkout.root / text)):
            if os.path.isfile(place):
                return {text: file_digest(place) or "missing"}
        if self._files is None:
            self._files = list(_files_below(str(self.checkout.root)))
        end = f"/{text.removeprefix('./')}"
        found = [name for name in self._files if f"/{name}".endswith(end)]
        return {name: file_digest(self.checkout.root / name) or "missing" for name in found}

    def reference(self, thing: Any) -> tuple[str, str, str] | None:
        """Module, qualified name and code digest of a top-level class or function of the project, else None."""
        module_name, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
        module = self.checkout.modules.get(module_name) if isinstance(module_name, str) else None
        if module is None or _follow(module, qualname) is not thing:
            return None
        return module.__name__, qualname, self._digest(thing)

    def resolve(self, module: str, qualname: str, code_digest: str) -> Any:
        """The class or function of a reference.

        Raises
        ------
        Damaged
            It is gone, or its code is another one now.
        """
        try:
            thing = _follow(self.checkout.load(module), qualname)
        except ImportError:
            thing = None
        if thing is None or self._digest(thing) != code_digest:
            raise Damaged(f"{module}.{qualname} has changed since the result was stored.")
        return thing

    def _digest(self, thing: Any) -> str:
        if id(thing) in self._in_progress:
            return "itself"  # a constant of the class is an instance of the class
        self._in_progress.add(id(thing))
        try:
            parts = self.parts(self.reach(thing))
            return digest(*(text for part in sorted(parts.items()) for text in part))
        finally:
            self._in_progress.discard(id(thing))

    def relative(self, path: PurePath) -> str:
        """A path as text, without the place of the checkout, which differs from commit to commit."""
        try:
            return str(path.relative_to(self.checkout.root))
        except ValueError:
            return str(path)

    def whole(self) -> str:
        """Digest of all Python files of the checkout, for code that can reach any of them."""
        return file_digest(self.checkout.root, "*.py") or ""


def _files_below(root: str) -> Iterator[str]:
    """Yield the paths of all files but Python's and hidden ones, relative to a folder."""
    for folder, inner, names in os.walk(root):
        inner[:] = [each for each in inner if not each.startswith(".") and each != "__pycache__"]
        for name in names:
            if not name.startswith(".") and not name.endswith(".py"):
                yield os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")


def _follow(start: Any, qualname: str) -> Any:
    for part in qualname.split("."):
        start = getattr(start, "__dict__", {}).get(part)
    return start
