"""Run the inference server: ``python -m orrery.serving``."""

from __future__ import annotations

import argparse
import sys

from orrery.errors import OrreryError
from orrery.serving.process import serve
from orrery.settings import load


def main() -> int:
    """Read the command line, serve, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m orrery.serving", description="The inference server of one orrery.")
    parser.add_argument("--home", help="folder of the orrery; default: ORRERY_HOME")
    parser.add_argument("--replica", type=int, default=0, metavar="N", help="which of several that share the ports")
    asked = parser.parse_args()
    try:
        return serve(load(asked.home), replica=asked.replica)
    except OrreryError as error:
        print(f"orrery: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
