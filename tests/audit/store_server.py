"""An object store that speaks S3: ``python store_server.py PORT``.

moto wants the name of the checksum's algorithm from who writes to a bucket with retention; S3 is content with the
checksum itself ("Content-MD5 OR x-amz-checksum- HTTP header is required"), and so is this.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

served = DomainDispatcherApplication(create_backend_app)


def store(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request."""
    if "HTTP_X_AMZ_CHECKSUM_SHA256" in environ:
        environ.setdefault("HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM", "SHA256")
    answer: Iterable[bytes] = served(environ, start)
    return answer


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), store, threaded=True)
