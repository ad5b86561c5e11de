"""The entry point ``orrery``.

Nothing heavy is imported here: a command imports what it needs when it runs, so that ``orrery --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from orrery.cli import (
    access,
    anchor,
    audit,
    backup,
    channel,
    data,
    demo,
    doctor,
    issue,
    key,
    local,
    orders,
    privacy,
    project,
    reading,
    remote,
    score,
    secret,
    timeline,
    up,
)
from orrery.cli.command import ACTOR, FAILED, HOME, JSON, OK, USAGE

app = typer.Typer(
    name="orrery",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 1 failed or refused; 2 the command line was not understood.",
)
PARTS = (
    up, project, local, orders, issue, timeline, reading, data, score, privacy, access, secret, channel, remote, audit,
    anchor, backup, key, doctor, demo,
)  # fmt: skip
for part in PARTS:
    part.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"orrery {version('orrery-ml')}")
        raise typer.Exit(OK)


@app.callback()
def shared(
    context: typer.Context,
    home: Annotated[str | None, HOME] = None,
    actor: Annotated[str | None, ACTOR] = None,
    as_json: Annotated[bool, JSON] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Keep machine-learning models true while the world moves: from git push to a proven champion.

    --home, --as and --json are understood before the command and after it.
    """
    context.obj = (home, actor, as_json)


def main() -> None:
    """Run the command that the command line names, and end with its exit code."""
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort:
        print("orrery: Stopped.", file=sys.stderr)
        code = FAILED
    except BrokenPipeError:  # who reads us has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = OK
    except Exception as error:
        if not isinstance(error, _USAGE_ERROR):
            raise
        code = _misread(error)
    sys.exit(code if isinstance(code, int) else OK)


_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]  # not exported under a name of its own


def _misread(error: Exception) -> int:
    """Say what of the command line was not understood."""
    import json

    context = getattr(error, "ctx", None)
    message = getattr(error, "format_message", lambda: str(error))()
    path = context.command_path if context is not None else "orrery"
    if not message:  # no arguments at all: the help was asked for
        print(context.get_help() if context is not None else "", file=sys.stderr)
    elif "--json" in sys.argv:
        fields = {"what": message, "safe": "Nothing was done.", "todo": f"{path} --help"}
        print(json.dumps({"error": fields}), file=sys.stderr)
    else:
        print(f"orrery: {message}\n        `{path} --help` says what can be given.", file=sys.stderr)
    return USAGE


if __name__ == "__main__":
    main()
