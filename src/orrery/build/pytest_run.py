"""The project's tests, run by pytest in its environment: ``python -m orrery.build.pytest_run ARGUMENTS``.

It is ``python -m pytest``, but may be forked from a process that has imported the environment's libraries.
"""

from __future__ import annotations

import os
import sys


def main(arguments: list[str]) -> int:
    """Run pytest; returns its exit code."""
    sys.dont_write_bytecode = True  # the checkout is a copy that nobody reads again
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    import pytest

    return int(pytest.main(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
