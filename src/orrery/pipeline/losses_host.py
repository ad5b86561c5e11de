"""A process that computes the losses of a project: ``python -m orrery.pipeline.losses_host FOLDER``.

It has the code of one commit, no model and no frames, so that it starts at once and serves every version of that
commit. The channel is that of :mod:`orrery.pipeline.host`; each request is::

    {"id": 1, "function": "losses:missed", "bound": 10.0, "classes": [false, true], "outputs": b"(float64, by row)",
     "width": 1, "labels": b"(float64)"}                               ->  {"id": 1, "output": b"(float64)", ...}
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from orrery.pipeline.host import THREADS, own_channels, read, write


def main(argv: list[str]) -> int:
    """Answer until the input ends; returns the exit code."""
    (folder,) = argv
    began = time.perf_counter()
    for name in THREADS:
        os.environ.setdefault(name, "1")
    requests, answers = own_channels()

    import msgspec

    from orrery.pipeline.checkout import Checkout
    from orrery.pipeline.loaded import note

    checkout = Checkout(Path(folder))
    write(answers, msgspec.msgpack.encode({"ready": True, "seconds": time.perf_counter() - began, "columns": {}}))
    note()
    while (body := read(requests)) is not None:
        began_cpu = time.process_time()
        answer = _lost(checkout, msgspec.msgpack.decode(body))
        write(answers, msgspec.msgpack.encode(answer | {"cpu": time.process_time() - began_cpu}))
    return 0


def _lost(checkout: Any, request: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from orrery.errors import ProjectFailed
    from orrery.pipeline.own_loss import own_losses

    number = request["id"]
    outputs = np.frombuffer(request["outputs"], dtype="<f8").reshape(-1, request["width"])
    labels = np.frombuffer(request["labels"], dtype="<f8")
    place = (request["function"], request["bound"])
    try:
        losses = own_losses(checkout, request["classes"], *place, outputs, labels)
    except ProjectFailed as error:
        return {"id": number, "error": {"kind": "project", "what": str(error), "column": "", "row": None}}
    return {"id": number, "output": losses.tobytes(), "missing": (), "extra": ()}


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except BrokenPipeError:
        code = 0  # whoever asked is gone
    sys.exit(code)
