"""AWS's services, such as its object store and its key service: ``python store_server.py PORT``.

moto wants the name of the checksum's algorithm from who writes to a bucket with retention; S3 is content with the
checksum itself ("Content-MD5 OR x-amz-checksum- HTTP header is required"), and so is this.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

served = DomainDispatcherApplication(create_backend_app)


def store(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request."""
    if "HTTP_X_AMZ_CHECKSUM_SHA256" in environ:
        environ.setdefault("HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM", "SHA256")
    answer: Iterable[bytes] = served(environ, start)
    return answer


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Serve in a process of its own; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, quiet = f"http://127.0.0.1:{port}", subprocess.DEVNULL
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    with subprocess.Popen([sys.executable, __file__, str(port)], env=env, stdout=quiet, stderr=quiet) as server:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                httpx.get(url)
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield url
        server.terminate()


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), store, threaded=True)
