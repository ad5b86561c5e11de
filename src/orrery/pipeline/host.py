"""A process that holds one version and answers: ``python -m orrery.pipeline.host ARTIFACT``.

Frames on standard input and output: four bytes of length, little-endian, then MessagePack. First it writes
``{"ready": true, "seconds": ..., "columns": {name: type}, "warning": ...}``, or ``{"error": ...}`` and ends. Then, for
each request::

    {"id": 1, "op": "predict", "columns": {name: [values]}, "n": 2}  ->  {"id": 1, "output": [[0.2], [0.7]], ...}
    {"id": 2, "op": "predict", "arrow": b"(IPC stream)"}             ->  {"id": 2, "output": b"(float64, by row)", ...}

    {"id": 3, "op": "explain", "columns": {...}, "n": 1}         ->  {"id": 3, "explanation": {...}, "output": [], ...}
    {"id": 4, "op": "time", "columns": {...}, "n": 1}            ->  {"id": 4, "seconds": 0.1, "compiled": true, ...}

with ``"width"`` (columns of the output), ``"missing"`` and ``"extra"`` (columns not sent, and not expected); or
``{"id": 1, "error": {"kind": "rows" | "project" | "absent", "what": ..., "column": ..., "row": ...}}`` (``absent``: a
package that explaining takes is not installed). ``time`` is
:mod:`orrery.pipeline.timing`.
What the project's code prints goes to standard error. At the end of input the process ends.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from orrery.pipeline.explain import Explainer, Explanation
    from orrery.pipeline.predictor import Predictor
    from orrery.pipeline.rows import Rows
    from orrery.pipeline.timing import Timing

    Explain = Callable[[Rows], Explanation]

LENGTH_BYTES = 4
THREADS = ("POLARS_MAXTHREADS", "OMP_NUMTHREADS", "OPENBLAS_NUMTHREADS", "MKL_NUMTHREADS", "NUMEXPR_NUMTHREADS")


def main(argv: list[str]) -> int:
    """Load the version and answer until the input ends; returns the exit code."""
    import argparse

    began = time.perf_counter()
    parser = argparse.ArgumentParser(prog="orrery-host", description="Answer for one version of a model.")
    parser.add_argument("artifact", help="folder of the version")
    parser.add_argument("--which", choices=("model", "probe"), default="model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nice", action="store_true", help="give way to whatever else this machine does")
    options = parser.parse_args(argv)
    for name in THREADS:
        os.environ.setdefault(name, str(options.threads))
    if options.nice:
        os.nice(5)
    requests, answers = own_channels()

    import msgspec

    from orrery.errors import OrreryError
    from orrery.pipeline.loaded import note

    try:
        predictor = _load(options.artifact, options.which)
    except OrreryError as error:
        write(answers, msgspec.msgpack.encode({"error": {"what": str(error)}}))
        return 1
    explain, artifact = _explaining(predictor, options.artifact), options.artifact
    timing: Timing | None = None
    columns = {name: str(dtype) for name, dtype in predictor.columns.accepted.items()}
    ready = {"ready": True, "seconds": time.perf_counter() - began, "columns": columns, "warning": predictor.warning}
    write(answers, msgspec.msgpack.encode(ready))
    note()
    decoder, encoder = msgspec.msgpack.Decoder(), msgspec.msgpack.Encoder()
    while (body := read(requests)) is not None:
        began_cpu = time.process_time()
        request = decoder.decode(body)
        if request.get("op") == "load":
            predictor.leave()
            try:
                predictor, answer = _load(request["artifact"], request["which"]), {"id": request["id"], "loaded": True}
                explain, artifact, timing = _explaining(predictor, request["artifact"]), request["artifact"], None
            except OrreryError as error:
                answer = {
                    "id": request["id"],
                    "error": {"kind": "project", "what": str(error), "column": "", "row": None},
                }
        elif request.get("op") == "time":
            timing = timing or _timing(predictor, artifact)
            answer = _timed(timing, request)
        else:
            answer = _answer(predictor, request, explain)
        write(answers, encoder.encode(answer | {"cpu": time.process_time() - began_cpu}))
    return 0


def own_channels() -> tuple[BinaryIO, BinaryIO]:
    """Take the protocol away from what the project's code may read and print to."""
    requests = os.fdopen(os.dup(0), "rb", buffering=1 << 16)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, answers


def _load(artifact: str, which: str) -> Predictor:
    """Load, and predict once, so that a version that cannot is found before it is asked."""
    import polars as pl

    from orrery.pipeline.predictor import Predictor

    predictor = Predictor.load(artifact, which, alone=True, quick=True)
    predictor.predict(pl.read_parquet(os.path.join(artifact, "sample.parquet")))
    return predictor


def _explaining(predictor: Predictor, artifact: str) -> Explain:
    """Return what explains rows; what that takes is imported and made when it is first asked for."""
    made: list[Explainer] = []

    def explain(rows: Rows) -> Explanation:
        if not made:
            import polars as pl

            from orrery.pipeline.explain import Explainer

            made.append(Explainer(predictor, pl.read_parquet(os.path.join(artifact, "sample.parquet"))))
        return made[0].explain(rows)

    return explain


def _timing(predictor: Predictor, artifact: str) -> Timing:
    from orrery.pipeline.timing import Timing

    return Timing(predictor, artifact)


def _timed(timing: Timing, request: dict[str, Any]) -> dict[str, Any]:
    from orrery.errors import ProjectFailed
    from orrery.pipeline.rows import RowRefused

    number = request["id"]
    try:
        seconds, compiled = timing.ask(request["columns"], request["n"])
    except RowRefused as error:
        return {"id": number, "error": {"kind": "rows", "what": error.what, "column": error.column, "row": error.row}}
    except ProjectFailed as error:
        return {"id": number, "error": {"kind": "project", "what": str(error), "column": "", "row": None}}
    return {"id": number, "seconds": seconds, "compiled": compiled, "output": [], "missing": (), "extra": ()}


def _answer(predictor: Predictor, request: dict[str, Any], explain: Explain) -> dict[str, Any]:
    from orrery.errors import NotAllowed, NotUnderstood, ProjectFailed
    from orrery.pipeline.rows import RowRefused

    number = request.get("id")
    try:
        arrow = request.get("arrow")
        if arrow is not None:
            import polars as pl

            try:
                rows = predictor.columns.of_frame(pl.read_ipc_stream(arrow))
            except (OSError, TypeError, pl.exceptions.PolarsError) as error:
                raise NotUnderstood(f"`arrow` is no Arrow IPC stream: {error}") from error
        elif request.get("op") in ("predict", "explain") and isinstance(given := request.get("columns"), dict):
            count = request.get("n")
            rows = predictor.columns.of_values(given, len(next(iter(given.values()), ())) if count is None else count)
        else:
            raise NotUnderstood(f"A request needs `op` predict and `columns` or `arrow`; it has {sorted(request)}.")
        if request.get("op") == "explain":
            sent = {"missing": rows.missing, "extra": rows.extra}
            return {"id": number, "explanation": explain(rows), "output": [], **sent}
        output = predictor.predict_rows(rows)
    except RowRefused as error:
        return {"id": number, "error": {"kind": "rows", "what": error.what, "column": error.column, "row": error.row}}
    except NotUnderstood as error:
        return {"id": number, "error": {"kind": "rows", "what": str(error), "column": "", "row": None}}
    except NotAllowed as error:
        return {"id": number, "error": {"kind": "absent", "what": str(error), "column": "", "row": None}}
    except ProjectFailed as error:
        return {"id": number, "error": {"kind": "project", "what": str(error), "column": "", "row": None}}
    return {
        "id": number,
        "output": output.tolist() if arrow is None else output.tobytes(),
        "width": output.shape[1],
        "missing": rows.missing,
        "extra": rows.extra,
    }


def read(source: BinaryIO) -> bytes | None:
    """Return the next message, None where the input has ended."""
    head = source.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES:
        return None
    size = int.from_bytes(head, "little")
    body = source.read(size)
    return body if len(body) == size else None


def write(target: BinaryIO, body: bytes) -> None:
    """Send a message whole."""
    view = memoryview(len(body).to_bytes(LENGTH_BYTES, "little") + body)
    while view:
        view = view[target.write(view) :]


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except BrokenPipeError:
        code = 0  # whoever asked is gone
    sys.exit(code)
