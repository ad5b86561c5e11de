"""``orrery up``: control plane, workers and inference server on loopback, in the foreground."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from orrery import settings as orrery_settings
from orrery.cli import show
from orrery.cli.command import Here, command
from orrery.errors import NotAllowed, NotFound

if TYPE_CHECKING:
    from orrery.app import Orrery
    from orrery.settings import Settings
    from orrery.workers.supervisor import Child

Replicas = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=64, help="Processes of the inference server, on one port; default: 1."),
]

_TRIES = 100


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(up)
    command(app)(serve)


def up(
    here: Here,
    port: Annotated[int | None, typer.Option(metavar="N", help="Port of the pages and of git; default: 8700.")] = None,
    serving_port: Annotated[
        int | None, typer.Option(metavar="N", help="Port of the inference server; default: 8701.")
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", min=0, help="Worker processes; default: 1.")] = None,
    replicas: Replicas = None,
) -> None:
    """Start everything; Ctrl-C stops it.

    Control plane, workers and inference server run on loopback, watched over by this process in the foreground.

    A port that is named and taken is an error; without a name the next free one is used.
    """
    from orrery.app import Orrery
    from orrery.audit.places import split
    from orrery.cli.watching import Screen
    from orrery.notify.mail import server_of
    from orrery.registry import schema
    from orrery.workers.supervisor import Supervisor

    settings = orrery_settings.load(here.home, workers=workers)
    list(split(settings.anchors))  # refused now, not when it is time
    _check_alone(settings.home)
    control = _port(port, "ORRERY_PORT", settings.port, "--port", ())
    serving = _port(serving_port, "ORRERY_SERVING_PORT", settings.serving_port, "--serving-port", (control,))
    if settings.grpc_port:
        _port(None, "ORRERY_GRPC_PORT", settings.grpc_port, "ORRERY_GRPC_PORT", (control, serving))
    _check_tls(settings, (control, serving))
    settings = orrery_settings.load(here.home, workers=workers, replicas=replicas, port=control, serving_port=serving)
    if settings.mail:
        server_of(settings.mail, settings.mail_password)  # refused before anything is started
    orrery = Orrery(settings)
    schema.upgrade(settings.database, show.note)
    if settings.access == "required":
        _close(orrery, here)
    address = _addresses(settings)
    _write(settings.home / "address.json", {**address, "port": control, "serving_port": serving, "pid": os.getpid()})
    screen = Screen(orrery, address, as_json=here.as_json)
    supervisor = Supervisor(settings.home, children(settings), report=screen.report, on_status=screen.show_processes)
    try:
        with screen:
            supervisor.run()
    finally:
        (settings.home / "address.json").unlink(missing_ok=True)
    if not here.as_json:
        print("Stopped.")


def serve(
    here: Here,
    serving_port: Annotated[
        int | None, typer.Option("--port", metavar="N", help="Port of the inference server; default: 8701.")
    ] = None,
    replicas: Replicas = None,
) -> None:
    """Answer requests without the rest; Ctrl-C stops it.

    The inference server alone, with the versions that were assigned last, from the disk: neither the control plane nor
    the database is needed. Predictions wait in the journal until `orrery up` runs again.
    """
    from orrery.serving.assignment import AssignmentFile
    from orrery.workers.supervisor import Supervisor

    settings = orrery_settings.load(here.home, replicas=replicas)
    _check_alone(settings.home)
    assigned = AssignmentFile(settings.home / "serving" / "assignment.json").load()
    if assigned is None:
        raise NotFound(f"No version was ever assigned in {settings.home}.", todo="Start it with `orrery up` first.")
    port = _port(serving_port, "ORRERY_SERVING_PORT", settings.serving_port, "--port", ())
    _check_tls(settings, (port,))
    settings = orrery_settings.load(here.home, replicas=replicas, serving_port=port)
    names = [f"{slot.model} v{slot.version} ({slot.environment})" for slot in assigned.slots if slot.role == "champion"]
    show.note(f"{', '.join(names)}: {settings.serving_url}")
    Supervisor(settings.home, servers(settings), report=show.note).run()


def _close(orrery: Orrery, here: Here) -> None:
    """Make this an orrery whose users sign in; where nobody could, make the first administrator."""
    from orrery.access.homekey import home_key
    from orrery.access.roles import Grant
    from orrery.cli.access import welcome

    key = home_key(orrery.settings.home)
    if orrery.settings.oidc.issuer:
        from orrery.access.sign_on import SignOn

        SignOn(orrery.settings, orrery.timeline, orrery.denials, key)  # what it does not understand is said here
    (orrery.settings.home / orrery_settings.ACCESS_FILE).touch()
    accounts = orrery.accounts
    first = Grant("administrator")
    known = [one for one in accounts.all() if first in one.grants and not one.disabled]
    if not known:
        name, why = here.actor, "The first administrator: who started this orrery."
        if name not in {one.name for one in accounts.all()}:
            accounts.add(name, by=name, why=why)
        known = [accounts.get(name)]
        accounts.give(name, "administrator", by=name, why=why)
    if orrery.settings.passwords == "off" or any(one.has_password or one.issuers for one in known):
        return
    key, _ = orrery.keys.link(known[0].name, by=here.actor, why="Nobody could sign in yet.")
    shown = welcome(orrery.settings, key)
    if here.as_json:
        show.as_json({"account": known[0].name, "link": shown})
    else:
        print(f"{known[0].name} is administrator. To choose a password, once, within a day:\n  {shown}\n")


def children(settings: Settings) -> list[Child]:
    """Return the processes of one orrery, in the order of starting."""
    from orrery.workers.supervisor import Child

    env, python = _environment(settings), sys.executable
    return [
        Child("web", [python, "-m", "orrery.web"], env),
        *servers(settings),
        *(
            Child(f"worker-{number}", [python, "-m", "orrery.actions", f"worker-{number}"], env)
            for number in range(1, settings.workers + 1)
        ),
    ]


def servers(settings: Settings) -> list[Child]:
    """Return the processes of the inference server: one, or replicas that are numbered from 1 on."""
    from orrery.workers.supervisor import Child

    env, argv = _environment(settings), [sys.executable, "-m", "orrery.serving"]
    if settings.replicas <= 1:
        return [Child("serving", argv, env)]
    numbers = range(1, settings.replicas + 1)
    return [Child(f"serving-{number}", [*argv, "--replica", str(number)], env) for number in numbers]


def _check_tls(settings: Settings, taken: tuple[int, ...]) -> None:
    """See that the certificate can be used and its ports are free, before anything is started."""
    if not settings.tls_certificate:
        return
    from orrery.access.tls import Certificate

    Certificate(settings, settings.serving_clients)
    for name in ("tls_port", "serving_tls_port", "grpc_tls_port"):
        if port := getattr(settings, name):
            _port(port, "", port, f"ORRERY_{name.upper()}", taken)
            taken = (*taken, port)


def _check_alone(home: Path) -> None:
    from orrery.workers.supervisor import running

    if (pid := running(home)) is not None:
        raise NotAllowed(
            f"An orrery runs in {home} already, as process {pid}.",
            safe="It was left alone, and answers.",
            todo="Use that one, stop it with Ctrl-C, or give another folder with --home.",
        )


def _environment(settings: Settings) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in orrery_settings.SETTINGS}
    # Threads that wait busily for the next small product of matrices take the cores from whoever answers.
    threads = {"OPENBLAS_NUM_THREADS": env.get("OPENBLAS_NUM_THREADS", "1")}
    return env | threads | {**settings.environment(), "PYTHONUNBUFFERED": "1"}


def _addresses(settings: Settings) -> dict[str, str]:
    found = {
        "pages": f"{settings.control_url}/",
        "git": f"{settings.control_url}/git/MODEL.git",
        "mlflow": f"{settings.control_url}/mlflow",
        "inference": settings.serving_url,
    }
    if settings.grpc_port:
        found["grpc"] = f"127.0.0.1:{settings.grpc_port}"
    name = urlsplit(settings.url).hostname
    if settings.tls_certificate:
        found["by TLS"] = settings.url
    if settings.serving_tls_port:
        found["inference by TLS"] = f"https://{name}:{settings.serving_tls_port}"
    if settings.grpc_tls_port:
        found["grpc by TLS"] = f"{name}:{settings.grpc_tls_port}"
    return found


def _port(flag: int | None, variable: str, preferred: int, option: str, taken: tuple[int, ...]) -> int:
    """Return the port to use.

    Raises
    ------
    NotAllowed
        If a port that was asked for is in use, or none is free.
    """
    asked = flag if flag is not None else preferred if os.environ.get(variable) else None
    if asked is not None:
        if asked in taken or not free(asked):
            name = option if flag is not None else variable
            raise NotAllowed(f"Port {asked} is in use.", safe="Nothing was started.", todo=f"Give {name} another port.")
        return asked
    for candidate in range(preferred, preferred + _TRIES):
        if candidate not in taken and free(candidate):
            return candidate
    raise NotAllowed(f"No port from {preferred} to {preferred + _TRIES - 1} is free.", todo=f"Name one with {option}.")


def free(port: int) -> bool:
    """Say whether a port of loopback can be listened on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
    return True


def _write(path: Path, value: dict[str, Any]) -> None:
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps({**value, "since": time.time()}))
    os.replace(fresh, path)
