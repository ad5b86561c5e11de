"""Values as bytes and back: what the cache keeps, and the digest that names it.

Frames are Arrow IPC files, NumPy arrays ``.npy``, the rest pickles. A project's own classes and functions are pickled
as a reference *and a digest of their code*: the bytes are then the same in every process, they change when a method
changes (whoever uses the object depends on it), and code that has changed since is noticed when reading.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
import threading
from dataclasses import dataclass
from pathlib import PurePath
from types import FunctionType
from typing import TYPE_CHECKING, Any, Protocol

from orrery.errors import Damaged, NotUnderstood

if TYPE_CHECKING:
    import cloudpickle

DIGEST_LENGTH = 40
"""Hexadecimal digits of SHA-256 that are kept: 160 bits."""

_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def digest(*parts: bytes | str) -> str:
    """Digest byte strings or texts, each with its length, so that no two splits give the same digest.

    >>> digest("ab", "c") == digest("a", "bc")
    False
    """
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()[:DIGEST_LENGTH]


class Code(Protocol):
    """What reading and writing needs to know about the project's code (see :mod:`orrery.pipeline.keys`)."""

    def reference(self, thing: Any) -> tuple[str, str, str] | None:
        """Module, qualified name and code digest of a top-level class or function of the project, else None."""

    def relative(self, path: PurePath) -> str:
        """A path as text, without the place of the checkout."""

    def resolve(self, module: str, qualname: str, code_digest: str) -> Any:
        """The class or function of a reference.

        Raises
        ------
        Damaged
            It is gone, or its code is another one now.
        """


@dataclass(frozen=True)
class Encoded:
    """A value as bytes."""

    kind: str
    """``pickle``, ``array``, ``frame``, ``series`` or ``lazyframe``."""
    data: bytes
    digest: str
    """Digest of kind and bytes."""


def encode(value: Any, code: Code) -> Encoded:
    """Turn a value into bytes.

    Raises
    ------
    NotUnderstood
        The value cannot be pickled (a connection, a lock, a generator).
    """
    kind, data = _bytes_of(value, code)
    return Encoded(kind, data, digest(kind, data))


def _bytes_of(value: Any, code: Code) -> tuple[str, bytes]:
    if type(value) in _PLAIN:
        return "pickle", pickle.dumps(value, protocol=5)
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(value, polars.LazyFrame | polars.DataFrame | polars.Series):
        try:
            return _frame_bytes(value, polars)
        except polars.exceptions.PolarsError:
            pass  # Python objects in a column: pickle tries, and says why if it cannot either.
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(value) is numpy.ndarray and not value.dtype.hasobject:
        buffer = io.BytesIO()
        numpy.save(buffer, value, allow_pickle=False)
        return "array", buffer.getvalue()
    try:
        buffer = io.BytesIO()
        _pickler(buffer, code).dump(value)
    except Exception as error:
        # Pickling runs arbitrary __reduce__ methods, which raise whatever they like; all mean the same here.
        raise NotUnderstood(
            f"A {type(value).__qualname__} cannot be stored: {type(error).__name__}: {error}"
        ) from error
    return "pickle", buffer.getvalue()


def _frame_bytes(value: Any, polars: Any) -> tuple[str, bytes]:
    kind, frame = "frame", value
    if isinstance(value, polars.LazyFrame):
        kind, frame = "lazyframe", value.collect()
    elif isinstance(value, polars.Series):
        kind, frame = "series", value.to_frame()
    buffer = io.BytesIO()
    frame.rechunk().write_ipc(buffer, compression="lz4")
    return kind, buffer.getvalue()


def decode(kind: str, data: bytes, code: Code) -> Any:
    """Turn bytes that :func:`encode` made back into the value.

    Raises
    ------
    Damaged
        The bytes need code that has changed or is gone.
    """
    _reading.code = code
    try:
        return _value_of(kind, io.BytesIO(data))
    except Damaged:
        raise
    except Exception as error:
        # The bytes are what was written (the digest was checked), so a class or library went away.
        raise Damaged(f"A stored value cannot be read: {type(error).__name__}: {error}") from error
    finally:
        _reading.code = None


def _value_of(kind: str, data: io.BytesIO) -> Any:
    if kind == "pickle":
        return pickle.load(data)  # nosec B301 - in the project's own process, what its own steps wrote
    if kind == "array":
        import numpy

        return numpy.load(data, allow_pickle=False)
    import polars

    frame = polars.read_ipc(data)
    if kind == "lazyframe":
        return frame.lazy()
    return frame.to_series() if kind == "series" else frame


_reading = threading.local()


def _resolve(module: str, qualname: str, code_digest: str) -> Any:
    """Find project code while a pickle is read (pickles name this function)."""
    code: Code | None = getattr(_reading, "code", None)
    if code is None:
        raise Damaged(f"{module}.{qualname} can only be read together with its project.")
    return code.resolve(module, qualname, code_digest)


_pickler_class: type[cloudpickle.Pickler] | None = None


def _pickler(file: io.BytesIO, code: Code) -> cloudpickle.Pickler:
    global _pickler_class
    if _pickler_class is None:
        import cloudpickle  # 30 ms, and runs that find everything in the cache do without

        class ProjectPickler(cloudpickle.Pickler):  # type: ignore[misc]
            code: Code

            def reducer_override(self, thing: Any) -> Any:
                if isinstance(thing, type | FunctionType):
                    reference = self.code.reference(thing)
                    if reference is not None:
                        return _resolve, reference
                return super().reducer_override(thing)

        _pickler_class = ProjectPickler
    pickler = _pickler_class(file, protocol=5)
    pickler.code = code
    return pickler


def own_copy(value: Any) -> Any:
    """Copy a value, so that its reader may change it in place without changing what others read.

    What cannot be copied is given as it is.
    """
    if type(value) in _PLAIN:
        return value
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(value, polars.LazyFrame | polars.DataFrame | polars.Series):
        return value.clone()
    import copy

    try:
        return copy.deepcopy(value)
    except Exception:
        # __deepcopy__ and __reduce__ are arbitrary code; sharing is what plain Python would do.
        return value
