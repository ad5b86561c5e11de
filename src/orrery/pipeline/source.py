"""What a piece of a module's source says, and which names it takes from outside.

Text is compared by its syntax tree, without documentation strings, so that comments and layout never matter. Which
names are global is asked of Python's own compiler (:mod:`symtable`), not guessed.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import symtable
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Nodes = dict[type[ast.AST], list[Any]]
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda

_DYNAMIC_BUILTINS = {"open", "input"}
WHOLE_PROJECT = {"eval", "exec", "globals", "__import__", "importlib.import_module", "sys.modules"}
"""Names whose use can reach any module of the project."""
_DYNAMIC = (
    "os.environ",
    "os.getenv",
    "random.",
    "time.time",
    "numpy.random.",
    "numpy.load",
    "polars.read_",
    "polars.scan_",
    "pandas.read_",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
    "uuid.uuid",
    "secrets.",
    "requests.",
    "httpx.",
    "urllib.request.",
    "socket.",
)
_SEEDED = ("default_rng", "RandomState", "Random", "SeedSequence", "Generator")


class Source:
    """The syntax of one module, as it was loaded."""

    def __init__(self, text: bytes, filename: str) -> None:
        self.tree = ast.parse(text, filename)
        self._tables: dict[tuple[str, int], list[symtable.SymbolTable]] = {}
        self._index_tables(symtable.symtable(importlib.util.decode_source(text), filename, "exec"))
        self._top = _by_line(self.tree.body)

    def _index_tables(self, table: symtable.SymbolTable) -> None:
        for child in table.get_children():
            self._tables.setdefault((child.get_name(), child.get_lineno()), []).append(child)
            self._index_tables(child)

    def functions(self, name: str, first_line: int) -> list[Definition]:
        """The definitions that a code object may come from (several lambdas can share a line)."""
        return self._top.get((name, first_line)) or self._inner.get((name, first_line), [])

    @functools.cached_property
    def _inner(self) -> dict[tuple[str, int], list[Definition]]:
        return _by_line(ast.walk(self.tree))

    def class_(self, qualname: str) -> ast.ClassDef | None:
        """The last definition of a class by its qualified name, such as ``Outer.Inner``."""
        scope: ast.AST = self.tree
        for part in qualname.replace("<locals>.", "").split("."):
            found = [
                node
                for node in ast.walk(scope)
                if isinstance(node, Definition) and _name(node) == part and node is not scope
            ]
            if not found:
                return None
            scope = found[-1]
        return scope if isinstance(scope, ast.ClassDef) else None

    def globals_of(self, node: Definition) -> set[str]:
        """Names that the definition looks up in its module, or in the builtins."""
        names = {
            inner.id for outer in _evaluated_outside(node) for inner in ast.walk(outer) if isinstance(inner, ast.Name)
        }
        pending = list(self._tables.get((_name(node), node.lineno), []))
        while pending:
            table = pending.pop()
            # A class body falls back to the module for a name that it also assigns; functions do not.
            in_class = table.get_type() == "class"
            names.update(
                symbol.get_name()
                for symbol in table.get_symbols()
                # `global COUNT; COUNT += 1` only assigns, for the compiler; the old value matters all the same.
                if symbol.is_declared_global() or (symbol.is_referenced() and (in_class or symbol.is_global()))
            )
            pending.extend(table.get_children())
        return names


def _by_line(nodes: Iterable[ast.AST]) -> dict[tuple[str, int], list[Definition]]:
    found: dict[tuple[str, int], list[Definition]] = {}
    for node in nodes:
        if isinstance(node, Definition):
            found.setdefault((_name(node), _first_line(node)), []).append(node)
    return found


def _name(node: Definition) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def _first_line(node: Definition) -> int:
    """The line that the code object names: that of the first decorator."""
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return min([node.lineno, *(each.lineno for each in decorators)])


def _evaluated_outside(node: Definition) -> Iterator[ast.AST]:
    """The parts of a definition that run where it stands: decorators, defaults, annotations, bases."""
    if isinstance(node, ast.ClassDef):
        yield from (*node.decorator_list, *node.bases, *node.keywords)
        return
    yield node.args
    if not isinstance(node, ast.Lambda):
        yield from node.decorator_list
        if node.returns is not None:
            yield node.returns


def survey(node: ast.AST, *, without_defaults: bool = False) -> tuple[str, Nodes]:
    r"""The text of a syntax tree without comments, layout and documentation strings, and all its nodes by type.

    >>> documented = ast.parse("def f(x):\n    'Doc.'\n    return x  # why")
    >>> survey(documented)[0] == survey(ast.parse("def f( x ): return x"))[0]
    True
    """
    # One pass of our own: ast.dump after a copy, with one ast.walk for each question, takes six times as long.
    words: list[str] = []
    nodes: Nodes = {}
    skipped = (node.args.defaults, node.args.kw_defaults) if isinstance(node, ast.FunctionDef) else ()

    def read(value: Any) -> None:
        if type(value) is list:
            words.append("[")
            if not (without_defaults and any(value is each for each in skipped)):
                for each in value:
                    read(each)
            words.append("]")
            return
        if not isinstance(value, ast.AST):
            words.append(repr(value))
            return
        kind = type(value)
        nodes.setdefault(kind, []).append(value)
        words.append(kind.__name__)
        for name in kind._fields:
            if name == "ctx":
                continue  # follows from where it stands
            inner = getattr(value, name, None)
            if inner is None:
                words.append("-")
            elif type(inner) is str:
                words.append(repr(inner))
            elif name == "body" and kind in _DOCUMENTED and _is_text(inner):
                read(inner[1:])
            else:
                read(inner)
        words.append(".")

    read(node)
    return " ".join(words), nodes


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _is_text(body: list[ast.stmt]) -> bool:
    first = body[0] if body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def _chain(node: ast.Attribute) -> tuple[str, tuple[str, ...]]:
    """``a.b.c`` as ``a`` and ``(b, c)``; an empty base for attributes of anything but a name."""
    chain, part = [node.attr], node.value
    while isinstance(part, ast.Attribute):
        chain.append(part.attr)
        part = part.value
    return (part.id if isinstance(part, ast.Name) else ""), tuple(reversed(chain))


def attributes(node: ast.AST, name: str) -> set[tuple[str, ...]]:
    """The attribute chains that follow `name`: ``{("a", "b")}`` for ``name.a.b``; ``()`` where it stands alone."""
    chains: set[tuple[str, ...]] = set()
    inside: set[int] = set()
    for outer in ast.walk(node):
        if isinstance(outer, ast.Attribute) and id(outer) not in inside:
            inside.update(id(part) for part in ast.walk(outer) if _chain(outer)[0])
            base, chain = _chain(outer)
            if base == name:
                chains.add(chain)
    if any(isinstance(i, ast.Name) and i.id == name and id(i) not in inside for i in ast.walk(node)):
        chains.add(())
    return chains


def local_imports(nodes: Nodes) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Imports within a definition: module, number of leading dots, names (none for ``import module``)."""
    for plain in nodes.get(ast.Import, ()):
        yield from ((alias.name, 0, ()) for alias in plain.names)
    for inner in nodes.get(ast.ImportFrom, ()):
        yield inner.module or "", inner.level, tuple(alias.name for alias in inner.names)


def literals(nodes: Nodes) -> set[str]:
    """String literals that could name a file."""
    texts = (node.value for node in nodes.get(ast.Constant, ()))
    return {text for text in texts if isinstance(text, str) and could_be_file(text)}


def could_be_file(text: str) -> bool:
    """Whether a string is worth asking the file system about."""
    return len(text) < 1024 and ("/" in text or "." in text) and "\n" not in text and "\0" not in text


def dynamic(nodes: Nodes, real_name: Callable[[str], str]) -> set[str]:
    """What a definition uses whose result can differ though no code, data or parameter does.

    `real_name` gives what a name stands for: ``numpy`` for a global ``np``, nothing for a variable.
    """
    imported = {}
    for plain in nodes.get(ast.Import, ()):
        imported.update({alias.asname: alias.name for alias in plain.names if alias.asname})
        imported.update({top: top for top in (a.name.partition(".")[0] for a in plain.names if not a.asname)})
    for inner in nodes.get(ast.ImportFrom, ()):
        imported.update({alias.asname or alias.name: f"{inner.module}.{alias.name}" for alias in inner.names})
    with_arguments = {id(call.func) for call in nodes.get(ast.Call, ()) if call.args or call.keywords}
    used = [(id(node), imported.get(node.id) or real_name(node.id)) for node in nodes.get(ast.Name, ())]
    for node in nodes.get(ast.Attribute, ()):
        base, chain = _chain(node)
        if base:
            used.append((id(node), ".".join((imported.get(base) or real_name(base), *chain))))
    found = {
        text
        for node_id, text in used
        if text in _DYNAMIC_BUILTINS
        or text in WHOLE_PROJECT
        or (text.startswith(_DYNAMIC) and not (text.rpartition(".")[2] in _SEEDED and node_id in with_arguments))
    }
    # os.environ.get is os.environ: say it once.
    return {text for text in found if not any(text.startswith(f"{other}.") for other in found)}
