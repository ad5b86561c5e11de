"""What every command shares: where the orrery is, who acts, and how an error is told.

Exit codes: 0 it is done; 1 it failed or was refused, and standard error says what, what is safe and what to do; 2 the
command line itself could not be understood.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orrery import settings as orrery_settings
from orrery.errors import NotAllowed, NotFound, OrreryError, ProjectFailed
from orrery.settings import Settings

if TYPE_CHECKING:
    from orrery.app import Orrery

OK, FAILED, USAGE = 0, 1, 2

HOME = typer.Option("--home", metavar="DIR", help="Folder of the orrery; default: ORRERY_HOME, or the XDG data home.")
ACTOR = typer.Option("--as", metavar="NAME", help="Who acts; default: ORRERY_ACTOR, or the user of the system.")
JSON = typer.Option("--json", help="One JSON object a line, for scripts.")

Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for somebody who was not there.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.")]
VersionNumber = Annotated[int, typer.Argument(metavar="VERSION", help="Number of the version.", min=1)]


class Here:
    """Where a command acts, for whom, and in which form it answers.

    Parameters
    ----------
    home : folder of the orrery, None as the environment says.
    actor : who acts, None as the environment says.
    as_json : whether scripts are to read the answer.
    """

    def __init__(self, home: str | None, actor: str | None, as_json: bool) -> None:
        self.as_json = as_json
        self.home = home
        self._actor = actor

    @cached_property
    def settings(self) -> Settings:
        """The settings; ports are those of the running orrery, if one runs here."""
        settings = orrery_settings.load(self.home)
        address = addresses(settings.home)
        ports = {name: address[name] for name in ("port", "serving_port") if name in address}
        return orrery_settings.load(self.home, **ports) if ports else settings

    @property
    def actor(self) -> str:
        """Who acts: where access is required, the user of the operating system and no other.

        Raises
        ------
        NotAllowed
            If another name is given there.
        """
        if self.settings.access != "required":
            return self._actor or orrery_settings.actor()
        own = orrery_settings.user()
        named = self._actor or os.environ.get("ORRERY_ACTOR") or own
        if named != own:
            raise NotAllowed(
                f"Here {own} acts, not {named}: this orrery requires that everybody acts under their own name.",
                safe="Nothing was changed.",
                todo="Leave --as and ORRERY_ACTOR away, or sign in to the pages.",
            )
        return own

    def orrery(self, *, make: bool = False) -> Orrery:
        """Open the orrery; with ``make`` also one that is not there yet.

        Raises
        ------
        NotFound
            If there is none, and none is to be made.
        """
        from orrery.app import Orrery

        settings = self.settings
        file = settings.home / "orrery.db"
        if not make and settings.database == f"sqlite:///{file}" and not file.exists():
            raise NotFound(
                f"There is no orrery in {settings.home} yet.",
                todo="`orrery up` starts one; --home DIR or ORRERY_HOME names another folder.",
            )
        return Orrery(settings)


def addresses(home: Path) -> dict[str, Any]:
    """Return what ``orrery up`` wrote of the orrery that runs in a home; nothing if none runs."""
    try:
        found = json.loads((home / "address.json").read_text())
    except (OSError, ValueError):
        return {}
    from orrery.workers.supervisor import running

    return found if isinstance(found, dict) and running(home) is not None else {}


def command(
    app: typer.Typer, name: str = "", *, alone: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a command: its first parameter gets a :class:`Here`, errors end as sentences.

    The options ``--home``, ``--as`` and ``--json`` are understood before the command and after it.

    Parameters
    ----------
    app : group of commands.
    name : of the command; empty for that of the function.
    alone : whether it is what the group itself does, where no command of it is named.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function, eval_str=True)
        own = list(signature.parameters.values())[1:]
        common = [
            _parameter("context_", typer.Context),
            _parameter("home_", Annotated[str | None, HOME], None),
            _parameter("actor_", Annotated[str | None, ACTOR], None),
            _parameter("json_", Annotated[bool, JSON], False),
        ]

        @functools.wraps(function)
        def run(**given: Any) -> None:
            context = given.pop("context_")
            home, actor, as_json = context.obj or (None, None, False)
            shared = (given.pop("home_") or home, given.pop("actor_") or actor, bool(given.pop("json_") or as_json))
            if alone and context.invoked_subcommand is not None:
                context.obj = shared
                return
            here = Here(*shared)
            try:
                function(here, **given)
            except OrreryError as error:
                tell(error, here.as_json)
                raise typer.Exit(FAILED) from None
            except BrokenPipeError:
                raise  # who reads us has read enough
            except Exception as error:
                if (known := _outside(error)) is None:
                    raise
                tell(known, here.as_json)
                raise typer.Exit(FAILED) from None

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        run.__signature__ = inspect.Signature([*parameters, *common])  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in [*parameters, *common]}
        del run.__wrapped__  # its annotations are not those of what runs
        (app.callback(invoke_without_command=True) if alone else app.command(name or function.__name__))(run)
        return function

    return register


def tell(error: OrreryError, as_json: bool) -> None:
    """Say on standard error what happened, what is safe and what to do."""
    output = error.output if isinstance(error, ProjectFailed) else ""
    if as_json:
        fields = {"what": error.what, "safe": error.safe, "todo": error.todo}
        print(json.dumps({"error": {**fields, **({"output": output} if output else {})}}), file=sys.stderr)
        return
    print(f"orrery: {error.what}", file=sys.stderr)
    for sentence in (error.safe, error.todo):
        if sentence:
            print(f"        {sentence}", file=sys.stderr)
    if output:
        print("\n".join(f"  | {line}" for line in output.rstrip().splitlines()), file=sys.stderr)


def _outside(error: Exception) -> OrreryError | None:
    """Say in words what the machine refused; None for what is a mistake of ours."""
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        return OrreryError(
            f"The system refused: {error.strerror or error}{place}.", todo="`orrery doctor` may say why."
        )
    if type(error).__module__.startswith("sqlalchemy"):
        first = str(getattr(error, "orig", None) or error).splitlines()[0]
        return OrreryError(f"The database cannot be used: {first}.", todo="`orrery doctor` looks closer.")
    return None


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
