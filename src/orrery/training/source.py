"""What a piece of a module's source says, and which names it takes from outside.

Text is compared by its syntax tree, without documentation strings, so that comments and layout never matter. Which
names are global is asked of Python's own compiler (:mod:`symtable`), not guessed.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import symtable
from collections.abc import Callable, Iterator

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
        self._by_line: dict[tuple[str, int], list[Definition]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, Definition):
                self._by_line.setdefault((_name(node), _first_line(node)), []).append(node)

    def _index_tables(self, table: symtable.SymbolTable) -> None:
        for child in table.get_children():
            self._tables.setdefault((child.get_name(), child.get_lineno()), []).append(child)
            self._index_tables(child)

    def functions(self, name: str, first_line: int) -> list[Definition]:
        """The definitions that a code object may come from (several lambdas can share a line)."""
        return self._by_line.get((name, first_line), [])

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


def normal_form(node: ast.AST, *, without_defaults: bool = False) -> str:
    r"""The text of a syntax tree without comments, layout and documentation strings.

    >>> documented = ast.parse("def f(x):\n    'Doc.'\n    return x  # why")
    >>> normal_form(documented) == normal_form(ast.parse("def f( x ): return x"))
    True
    """
    node = copy.deepcopy(node)
    for inner in ast.walk(node):
        if isinstance(inner, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = inner.body[0] if inner.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                inner.body = inner.body[1:]
    if without_defaults and isinstance(node, ast.FunctionDef):
        node.args.defaults, node.args.kw_defaults = [], []
    return ast.dump(node)


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


def local_imports(node: ast.AST) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Imports within a definition: module, number of leading dots, names (none for ``import module``)."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            yield from ((alias.name, 0, ()) for alias in inner.names)
        elif isinstance(inner, ast.ImportFrom):
            yield inner.module or "", inner.level, tuple(alias.name for alias in inner.names)


def literals(node: ast.AST) -> set[str]:
    """String literals that could name a file."""
    return {
        inner.value
        for inner in ast.walk(node)
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and could_be_file(inner.value)
    }


def could_be_file(text: str) -> bool:
    """Whether a string is worth asking the file system about."""
    return len(text) < 1024 and ("/" in text or "." in text) and "\n" not in text and "\0" not in text


def dynamic(node: ast.AST, real_name: Callable[[str], str]) -> set[str]:
    """What a definition uses whose result can differ though no code, data or parameter does.

    `real_name` gives what a name stands for: ``numpy`` for a global ``np``, nothing for a variable.
    """
    found = set()
    imported = {
        alias.asname
        or alias.name.partition(".")[
            0
        ]: f"{prefix}{alias.name if alias.asname or prefix else alias.name.partition('.')[0]}"
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
        for prefix in [f"{inner.module}." if isinstance(inner, ast.ImportFrom) else ""]
        for alias in inner.names
    }
    with_arguments = {
        id(call.func) for call in ast.walk(node) if isinstance(call, ast.Call) and (call.args or call.keywords)
    }
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            text = imported.get(inner.id) or real_name(inner.id)
        elif isinstance(inner, ast.Attribute):
            base, chain = _chain(inner)
            text = ".".join([imported.get(base) or real_name(base), *chain]) if base else ""
        else:
            continue
        seeded = text.rpartition(".")[2] in _SEEDED and id(inner) in with_arguments
        if text in _DYNAMIC_BUILTINS or text in WHOLE_PROJECT or (text.startswith(_DYNAMIC) and not seeded):
            found.add(text)
    # os.environ.get is os.environ: say it once.
    return {text for text in found if not any(text.startswith(f"{other}.") for other in found)}
