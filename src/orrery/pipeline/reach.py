"""What a function or class of a project reaches: everything in the project that can change its result.

Functions and classes are followed by their syntax and by what their names stand for when the module is loaded: through
decorators, closures, partials, base classes, other modules of the project. What other libraries hold is covered by the
digest of the environment; here only its names count.
"""

from __future__ import annotations

import builtins
import functools
import importlib.util
import marshal
from collections.abc import Callable
from dataclasses import dataclass, field
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from orrery.pipeline.source import (
    WHOLE_PROJECT,
    Definition,
    Source,
    attributes,
    dynamic,
    literals,
    local_imports,
    survey,
)
from orrery.pipeline.values import digest

if TYPE_CHECKING:
    from orrery.pipeline.keys import ProjectCode


@dataclass
class Reach:
    """What a function or class depends on."""

    fixed: dict[str, str] = field(default_factory=dict)
    """Label (``code clean``) to digest: settled when the module was loaded."""
    live: dict[str, Callable[[], Any]] = field(default_factory=dict)
    """Label (``constant LIMIT``) to a look-up of the value, which running code may change."""
    files: set[str] = field(default_factory=set)
    """Text in the code that may name a file."""
    outside: set[str] = field(default_factory=set)
    """Names of other libraries' things, as bound in the project."""
    warnings: set[str] = field(default_factory=set)
    """What is used whose result can change although nothing else does, in words."""
    unkeyed: list[str] = field(default_factory=list)
    """What is reached and cannot be followed, in words; a result that depends on it is never cached."""


class Walk:
    """One traversal; fills a :class:`Reach`."""

    def __init__(self, code: ProjectCode) -> None:
        self.code = code
        self.found = Reach()
        self._seen: set[Any] = set()
        self._kept: list[Any] = []  # what _seen names by id must stay alive

    def finished(self) -> Reach:
        """The reach, with the names of other libraries as one part."""
        self.found.fixed["imports"] = digest(*sorted(self.found.outside))
        return self.found

    def value(self, label: str, value: Any, look_up: Callable[[], Any], *, without_defaults: bool = False) -> None:
        """Follow whatever a name stands for."""
        if isinstance(value, FunctionType):
            self._function(label, value, without_defaults=without_defaults)
        elif isinstance(value, type):
            self._class(label, value)
        elif isinstance(value, ModuleType):
            self._module(value, label)
        elif isinstance(value, MethodType):
            self.value(label, value.__func__, lambda: value.__func__)
            self.value(f"{label}.__self__", value.__self__, lambda: value.__self__)
        elif isinstance(value, functools.partial):
            self.value(label, value.func, lambda: value.func)
            self._constant(label, lambda: (value.args, value.keywords))
        elif isinstance(getattr(value, "__wrapped__", None), FunctionType):
            # functools.lru_cache and its like: an object around a function
            self._outside(label, type(value))
            self.value(label, value.__wrapped__, lambda: value.__wrapped__, without_defaults=without_defaults)
        elif isinstance(value, BuiltinFunctionType) and isinstance(value.__self__, ModuleType | type(None)):
            self._outside(label, value)
        else:
            self._constant(label, look_up)

    def _constant(self, label: str, look_up: Callable[[], Any]) -> None:
        name, count = f"constant {label}", 1
        while name in self.found.live:
            count += 1
            name = f"constant {label} ({count})"
        self.found.live[name] = look_up

    def _new(self, thing: Any) -> bool:
        if id(thing) in self._seen:
            return False
        self._seen.add(id(thing))
        self._kept.append(thing)
        return True

    def _outside(self, label: str, thing: Any) -> None:
        name = _real_name(thing)
        if name in WHOLE_PROJECT:
            self._everything()
        self.found.outside.add(f"{label}={name}")

    def _everything(self) -> None:
        self.found.fixed["code of the whole project"] = self.code.whole()

    def _function(self, label: str, function: FunctionType, *, without_defaults: bool = False) -> None:
        # A step without its defaults and the same function called as a helper are two things.
        if not self._new((function, without_defaults) if without_defaults else function):
            return
        source = self.code.source(function.__code__.co_filename)
        nodes = source.functions(function.__code__.co_name, function.__code__.co_firstlineno) if source else []
        if not nodes:
            self._unwritten(label, function)
        for node in nodes:
            self._definition(label, node, source, function.__globals__, without_defaults=without_defaults)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self._cell(f"{label}.{name}", cell)
        if nodes and not without_defaults:
            positional = function.__code__.co_varnames[: function.__code__.co_argcount]
            defaults = function.__defaults__ or ()
            named = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
            for name, default in {**named, **(function.__kwdefaults__ or {})}.items():
                # A literal stands in the text; what was computed does not.
                if not isinstance(default, bool | int | float | str | None):
                    self.value(f"{label}({name}=)", default, functools.partial(_itself, default))

    def _unwritten(self, label: str, function: FunctionType) -> None:
        """A function of another library, or one that was made without a source file (by exec, at run time)."""
        if function.__module__ not in self.code.checkout.modules or self._is_file(function):
            self._outside(label, function)
            return
        self.found.fixed[f"helper {label}"] = digest(marshal.dumps(function.__code__))
        pending = [function.__code__]
        while pending:
            code = pending.pop()
            for name in code.co_names:
                self._name(function.__globals__, name, None)
            pending += [each for each in code.co_consts if isinstance(each, CodeType)]

    def _is_file(self, function: FunctionType) -> bool:
        file = function.__code__.co_filename
        return self.code.source(file) is None and not file.startswith("<")

    def _cell(self, label: str, cell: Any) -> None:
        try:
            contents = cell.cell_contents
        except ValueError:
            return  # not bound yet
        self.value(label, contents, lambda: cell.cell_contents)

    def _class(self, label: str, cls: type) -> None:
        if not self._new(cls):
            return
        module = self.code.checkout.modules.get(cls.__module__)
        if module is None:
            self._outside(label, cls)
            return
        source = self.code.source(module.__file__ or "")
        node = source.class_(cls.__qualname__) if source else None
        if node is not None and source is not None:
            self._definition(label, node, source, vars(module))
        for base in (type(cls), *cls.__mro__[1:]):
            self.value(self.code.label(base.__module__, base.__qualname__), base, lambda: None)
        for name, member in vars(cls).items():
            if name.startswith("__"):
                continue
            inner = getattr(member, "__func__", getattr(member, "fget", getattr(member, "func", member)))
            if isinstance(inner, FunctionType):
                # Of a written class the text says it all, unless somebody put another function in its place.
                if inner.__qualname__ != f"{cls.__qualname__}.{name}" or node is None:
                    self.value(f"{label}.{name}", inner, lambda: None)
            elif isinstance(member, bool | int | float | str | tuple | list | dict | set | frozenset):
                self._constant(f"{label}.{name}", functools.partial(getattr, cls, name))

    def _module(self, module: ModuleType, label: str = "") -> None:
        """A module as a whole: all that it holds."""
        if not self.code.is_project(module):
            self.found.outside.add(f"{label}={module.__name__}")
        elif self._new(module):
            for name in [name for name in vars(module) if not name.startswith("__")]:
                self._name(vars(module), name, None)

    def _definition(
        self,
        label: str,
        node: Definition,
        source: Source | None,
        namespace: dict[str, Any],
        *,
        without_defaults: bool = False,
    ) -> None:
        assert source is not None
        text, nodes = survey(node, without_defaults=without_defaults)
        name = f"code {label}" if without_defaults else f"helper {label}"
        # Two lambdas of one line share a label.
        self.found.fixed[name] = digest(self.found.fixed.get(name, ""), text)
        self.found.files |= literals(nodes)
        used_names = source.globals_of(node)
        for used in sorted(dynamic(nodes, lambda name: _meant(name, used_names, namespace))):
            self.found.warnings.add(f"{label} uses {used}, whose result can change unseen")
            if used in WHOLE_PROJECT:
                self._everything()
        for name in sorted(used_names):
            self._name(namespace, name, node)
        package = namespace.get("__package__") or ""
        for imported in local_imports(nodes):
            self._local_import(label, package, *imported)

    def _name(self, namespace: dict[str, Any], name: str, node: Definition | None) -> None:
        if name not in namespace:
            if not hasattr(builtins, name) and name not in ("__class__",):
                self.found.outside.add(f"{name} unbound")
            return
        value = namespace[name]
        if name == "__file__":
            return  # where the checkout is; the files read from there are found by their names
        if isinstance(value, ModuleType):
            if node is not None and self.code.is_project(value):
                for chain in attributes(node, name) or {()}:
                    self._chain(value, chain)
            elif node is not None or self.code.is_project(value):
                self._module(value, name)
            return
        if not self._new_name(namespace, name):
            return
        written = isinstance(value, type | FunctionType) and "<" not in value.__qualname__
        home, own_name = (value.__module__, value.__qualname__) if written else (namespace["__name__"], name)
        self.value(self.code.label(home, own_name), value, functools.partial(namespace.get, name))

    def _new_name(self, namespace: dict[str, Any], name: str) -> bool:
        place = (id(namespace), name)
        if place in self._seen:
            return False
        self._seen.add(place)
        return True

    def _chain(self, module: ModuleType, chain: tuple[str, ...]) -> None:
        """``helpers.text.clean`` in the code: the first thing on the way that is not a module."""
        for name in chain:
            value = vars(module).get(name)
            if not (isinstance(value, ModuleType) and self.code.is_project(value)):
                if name in vars(module):
                    self._name(vars(module), name, None)
                return
            module = value
        self._module(module)

    def _local_import(self, label: str, package: str, name: str, level: int, names: tuple[str, ...]) -> None:
        try:
            full = importlib.util.resolve_name("." * level + name, package) if level else name
            if not self.code.checkout.owns(full):
                self.found.outside.add(full)
                return
            module = self.code.checkout.load(full)
            for each in names:
                if each != "*" and each not in vars(module):
                    self._module(self.code.checkout.load(f"{full}.{each}"))
                elif each != "*":
                    self._name(vars(module), each, None)
            if not names or "*" in names:
                self._module(module)
        except Exception as error:
            # Importing runs the project's code; what it raises means that its text cannot be followed.
            self.found.unkeyed.append(f"{label} imports {name}, which fails: {type(error).__name__}: {error}")


def _itself(value: Any) -> Any:
    return value


def _meant(name: str, global_names: set[str], namespace: dict[str, Any]) -> str:
    """What a name in a definition stands for; empty for its own variables."""
    if name not in global_names:
        return ""
    return _real_name(namespace[name]) if name in namespace else name


def _real_name(thing: Any) -> str:
    """The name of a module, class or function where it is defined; empty for other objects."""
    if isinstance(thing, ModuleType):
        return thing.__name__
    owner = getattr(thing, "__self__", None)
    if isinstance(thing, BuiltinFunctionType) and owner is not None and not isinstance(owner, ModuleType):
        return f"{type(owner).__module__}.{type(owner).__qualname__}.{thing.__name__}"
    if isinstance(thing, MethodType):
        return f"{type(owner).__module__}.{type(owner).__qualname__}.{thing.__name__}"
    if isinstance(thing, type | FunctionType | BuiltinFunctionType):
        return f"{thing.__module__}.{thing.__qualname__}"
    return ""
