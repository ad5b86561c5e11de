"""`orrery --help` answers at once: what is heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import subprocess
import sys

HEAVY = (
    "mlflow",
    "sklearn",
    "polars",
    "deltalake",
    "scipy",
    "numpy",
    "pandas",
    "sqlalchemy",
    "fastapi",
    "rich",
    "httpx",
)


def cpu_seconds(*argv: str) -> float:
    """CPU seconds of a Python process, the best of three."""
    found = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, *argv], check=True, capture_output=True)
        after = os.times()
        used = (after.children_user - before.children_user) + (after.children_system - before.children_system)
        found.append(used)
    return min(found)


def loaded(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return {name.split(".")[0] for name in done.stdout.split("\n")[-2].split()}


def test_help_brings_nothing_heavy_along() -> None:
    help_of_all = (
        "sys.argv = ['orrery', '--help']\nfrom orrery.cli.main import main\ntry: main()\nexcept SystemExit: pass"
    )
    assert not loaded(help_of_all) & set(HEAVY)


def test_what_is_heavy_would_be_seen() -> None:
    assert "sqlalchemy" in loaded("import orrery.app")


def test_help_costs_little_more_than_typer_itself() -> None:
    assert cpu_seconds("-m", "orrery.cli.main", "--help") < 3.0 * cpu_seconds("-c", "import typer")
