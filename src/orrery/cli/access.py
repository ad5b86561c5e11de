"""Who may do what: ``user``, ``team``, ``token``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orrery.cli import show
from orrery.cli.command import Here, Why, command
from orrery.errors import NotAllowed, NotUnderstood

if TYPE_CHECKING:
    from orrery.access.accounts import Account
    from orrery.access.keys import Key
    from orrery.settings import Settings

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the account.")]
RoleName = Annotated[
    str, typer.Argument(metavar="ROLE", help="viewer, scientist, reviewer, compliance, operator or administrator.")
]
Place = Annotated[str, typer.Option("--on", metavar="PLACE", help="A project, team/NAME, data/NAME or * (all).")]
Reason = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for somebody who was not there.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    user = typer.Typer(help="Accounts and their roles.", no_args_is_help=True)
    for one in (add, invite, password, unfactor, link, disable, grant, ungrant, notify):
        command(user)(one)
    command(user, "list")(accounts)
    command(user, "sign-out")(sign_out)
    app.add_typer(user, name="user")
    team = typer.Typer(help="Teams: which project belongs to which.", no_args_is_help=True)
    command(team)(assign)
    command(team, "list")(teams)
    app.add_typer(team, name="team")
    token = typer.Typer(help="Tokens: what programs show.", no_args_is_help=True)
    command(token)(create)
    command(token, "list")(tokens)
    command(token)(revoke)
    app.add_typer(token, name="token")
    command(app)(credential)


def add(
    here: Here,
    name: Name,
    role: Annotated[str, typer.Option(metavar="ROLE", help="A first role; more with `orrery user grant`.")] = "",
    on: Place = "*",
    email: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS", help="Address of the person, as in commits; repeat.")
    ] = None,
    owner: Annotated[str, typer.Option(metavar="NAME", help="Makes it a service, for which this person answers.")] = "",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input; makes no link.")
    ] = False,
    why: Reason = "A new account.",
) -> None:
    """Add a person, or with --owner a service.

    A person gets a link that works once, within a day, to choose a password. A service has no password: it uses tokens.
    """
    from orrery.access.passwords import check as acceptable
    from orrery.access.roles import grant as understood

    if role:
        understood(role, on)  # refused before anything is written
    if password_stdin and here.settings.passwords == "off":
        raise NotAllowed("Nobody signs in with a password here.", safe="Nothing was changed.")
    password = acceptable(sys.stdin.readline().rstrip("\r\n"), name) if password_stdin else ""
    orrery = here.orrery(make=True)
    kind: Any = "service" if owner else "person"
    accounts_ = orrery.accounts
    accounts_.add(name, by=here.actor, why=why, kind=kind, owner=owner, links=email or [])
    if role:
        accounts_.give(name, role, on, by=here.actor, why=why)
    shown, by_password = "", here.settings.passwords == "on"
    if password:
        accounts_.choose_password(name, password, by=here.actor, why="With the account.")
    elif not owner and by_password:
        key, _ = orrery.keys.link(name, by=here.actor, why="To choose a first password.")
        shown = welcome(here.settings, key)
    if here.as_json:
        return show.as_json({**_account(accounts_.get(name)), "link": shown})
    print(f"{name} is added{f' as {role} of {_where(on)}' if role else ''}.")
    if shown:
        print(f"To choose a password, once, within a day:\n  {shown}")
    elif not owner:
        print(f"They sign in at {here.settings.oidc.issuer}.")
    else:
        print(f"`orrery token create {name} --scope git` makes a token for it.")
    return None


def invite(here: Here, name: Name, why: Reason = "To choose a new password.") -> None:
    """Make a new link by which a person chooses a password; earlier ones work no more."""
    if here.settings.passwords == "off":
        raise NotAllowed("Nobody signs in with a password here.", todo=f"They do at {here.settings.oidc.issuer}.")
    key, _ = here.orrery().keys.link(name, by=here.actor, why=why)
    shown = welcome(here.settings, key)
    if here.as_json:
        show.as_json({"account": name, "link": shown})
    else:
        print(shown)


def password(
    here: Here,
    tokens: Annotated[bool, typer.Option("--tokens", help="All tokens of the account end, too.")] = False,
    stdin: Annotated[
        bool,
        typer.Option(
            "--password-stdin",
            help="Read the old password, the new one, and a code where one is asked for, "
            "a line each, from standard input.",
        ),
    ] = False,
) -> None:
    """Change one's own password; the old one is asked for, and a code where there is a second factor.

    All sessions end. Who has forgotten it asks an administrator for a link: `orrery user invite`.
    """
    from getpass import getpass

    if here.settings.passwords == "off":
        raise NotAllowed("Nobody signs in with a password here.", todo=f"They do at {here.settings.oidc.issuer}.")
    orrery, name = here.orrery(), here.actor
    orrery.accounts.get(name)

    def asked(what: str) -> str:
        return sys.stdin.readline().rstrip("\r\n") if stdin else getpass(f"{what}: ")

    old, fresh = asked("Old password"), asked("New password")
    if not stdin and asked("Once more") != fresh:
        raise NotUnderstood("The two new ones are not the same.", safe="Nothing was changed.")
    code = asked("Code") if orrery.factors.has(name) else ""
    orrery.door.again(name, old, code)
    orrery.accounts.choose_password(name, fresh, by=name, why="Changed by its owner.", tokens=tokens)
    ended = "sessions and tokens" if tokens else "sessions"
    _done(here, {"account": name, "tokens": tokens}, f"The new password of {name} holds; its {ended} have ended.")


def unfactor(here: Here, name: Name, why: Why) -> None:
    """Remove the second factor of somebody who has lost theirs; where a role asks for one, they begin anew."""
    here.orrery().factors.remove(name, by=here.actor, why=why)
    _done(here, {"account": name, "factor": False}, f"{name} has no second factor any more.")


def link(
    here: Here,
    name: Name,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="An address, or the name of an author or account.")],
    why: Reason = "They are one person.",
) -> None:
    """Say that another name or address is the same person.

    Who wrote a commit under it then cannot approve what comes of it, where four eyes are asked for.
    """
    here.orrery().accounts.link(name, other, by=here.actor, why=why)
    _done(here, {"account": name, "link": other}, f"{other} is {name}.")


def disable(here: Here, name: Name, why: Why) -> None:
    """Let an account in no more.

    All its keys are revoked, and the services that it owns are disabled too. What it did stays on the timeline.
    """
    here.orrery().accounts.disable(name, by=here.actor, why=why)
    _done(here, {"account": name, "disabled": True}, f"{name} is disabled; its sessions and tokens work no more.")


def grant(here: Here, name: Name, role: RoleName, on: Place = "*", why: Reason = "A role is given.") -> None:
    """Give a role somewhere; reviewer:quality is a reviewer for that sign-off only."""
    here.orrery().accounts.give(name, role, on, by=here.actor, why=why)
    _done(here, {"account": name, "role": role, "on": on}, f"{name} is {role} of {_where(on)}.")


def ungrant(here: Here, name: Name, role: RoleName, why: Why, on: Place = "*") -> None:
    """Take a role back."""
    here.orrery().accounts.take(name, role, on, by=here.actor, why=why)
    _done(here, {"account": name, "role": role, "on": on}, f"{name} is {role} of {_where(on)} no more.")


def notify(
    here: Here,
    name: Name,
    wish: Annotated[str, typer.Argument(metavar="WHAT", help="all, reviews or nothing.")],
    to: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where; an empty one for the first that is linked.")
    ] = None,
    why: Reason = "So it was wished.",
) -> None:
    """Say what a person is told by mail, and where."""
    orrery = here.orrery()
    orrery.accounts.get(name)
    orrery.channels.wish(name, wish, by=here.actor, why=why, address=to)
    _done(here, {"account": name, "wish": wish}, f"{name} is told {wish}.")


def sign_out(here: Here, name: Name, why: Why) -> None:
    """End all sessions of an account, wherever they are; its tokens stay."""
    ended = here.orrery().keys.sign_out(name, by=here.actor, why=why)
    _done(here, {"account": name, "sessions": ended}, f"{ended} sessions of {name} ended.")


def accounts(here: Here) -> None:
    """List the accounts, their roles and their other names."""
    orrery = here.orrery()
    factors = orrery.factors.all()
    found = [{**_account(one), "factor": one.name in factors} for one in orrery.accounts.all()]
    if here.as_json:
        for one in found:
            show.as_json(one)
    elif found:
        rows = [
            (
                one["account"],
                "disabled" if one["disabled"] else one["kind"],
                ", ".join(f"{each['role']} of {_where(each['on'])}{_brought(each)}" for each in one["roles"]) or "-",
                ", ".join([*([f"owned by {one['owner']}"] if one["owner"] else []), *one["links"], *one["issuers"]]),
            )
            for one in found
        ]
        show.columns(rows, ("account", "", "roles", "also"))
    else:
        show.note("No account yet: `orrery user add NAME --role administrator` makes one.")


def assign(
    here: Here,
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Name of the project, or data/NAME for a dataset.")],
    team: Annotated[str, typer.Argument(metavar="TEAM", help="Name of the team; an empty one for none.")],
    why: Reason = "It belongs there.",
) -> None:
    """Make a project or a dataset one of a team; who has a role in team/TEAM has it there.

    A dataset of a team is for that team's projects alone; one without a team is common to all.
    """
    here.orrery(make=True).accounts.assign(project, team, by=here.actor, why=why)
    _done(here, {"project": project, "team": team}, f"{project} belongs to {team or 'no team'}.")


def teams(here: Here) -> None:
    """List which project belongs to which team."""
    found = here.orrery().accounts.teams()
    if here.as_json:
        for project, team in found.items():
            show.as_json({"project": project, "team": team})
    else:
        show.columns(sorted((team, project) for project, team in found.items()), ("team", "project"))


def create(
    here: Here,
    name: Name,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPE", help="What it opens: api, git, mlflow, inference; repeat.")
    ] = None,
    project: Annotated[str, typer.Option(metavar="NAME", help="Only for this project.")] = "",
    lasts: Annotated[str, typer.Option(metavar="TIME", help="How long it holds; a year at most.")] = "90d",
    label: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    why: Reason = "A program needs it.",
) -> None:
    """Make a token; it is shown once, and only a hash of it is kept.

    It can do what the roles of its account allow, through the entrances that its scopes name, and no more.
    """
    from orrery.types import parse_duration

    shown, key = here.orrery().keys.token(
        name,
        by=here.actor,
        why=why,
        scopes=scope or [],
        project=project,
        lasts=parse_duration(lasts),
        label=label,
    )
    if here.as_json:
        return show.as_json({**_token(key), "token": shown})
    show.note(f"Token {key.id} of {name}, until {show.minute(key.until)}. It is not shown again:")
    print(shown)
    return None


def tokens(
    here: Here,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only those of this account.")] = None,
) -> None:
    """List tokens: what they open, until when, and when they were used; never the token itself."""
    found = here.orrery().keys.all(name)
    if here.as_json:
        for one in found:
            show.as_json(_token(one))
    elif found:
        now = datetime.now(UTC)
        rows = [
            (
                one.id,
                one.account,
                ", ".join(one.scopes) + (f" of {one.project}" if one.project else ""),
                "revoked" if one.revoked else show.minute(one.until) if one.holds(now) else "expired",
                show.minute(one.seen) or "never",
                one.label,
            )
            for one in found
        ]
        show.columns(rows, ("token", "account", "opens", "until", "used", "label"))
    else:
        show.note("No token yet: `orrery token create NAME --scope git` makes one.")


def revoke(
    here: Here,
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="Id of the token, as `orrery token list` names it.")],
    why: Why,
) -> None:
    """Revoke a token: it opens nothing any more."""
    if token.startswith("orrery_"):
        raise NotUnderstood(
            "That is a token, not the id of one.",
            safe="It was not written down, and it was not revoked.",
            todo=f"`orrery token revoke {token[8:20]}` does it; the shell's history may hold the token.",
        )
    key = here.orrery().keys.revoke(token, by=here.actor, why=why)
    _done(here, {"token": token, "account": key.account}, f"The token {token} of {key.account} works no more.")


def credential(
    here: Here,
    operation: Annotated[str, typer.Argument(metavar="OPERATION", help="get, store or erase, as git says it.")],
) -> None:
    """Hand git a token for a push to this orrery: git calls it, people do not.

    `orrery init` sets it up: git config credential.http://127.0.0.1:8700.helper '!orrery credential'. The token is of
    the account of who runs it, for git alone, and holds for ten minutes.
    """
    from datetime import timedelta

    asked = dict(line.rstrip("\n").partition("=")[::2] for line in sys.stdin)
    settings = here.settings
    ours = {settings.control_url, settings.public_url}
    if operation != "get" or settings.access != "required":
        return
    if f"{asked.get('protocol')}://{asked.get('host')}" not in ours:
        return  # another server's: nothing of ours is for it
    shown, _ = here.orrery().keys.token(
        here.actor, by=here.actor, why="git asked for it.", scopes=["git"], lasts=timedelta(minutes=10), label="git"
    )
    print(f"username={here.actor}\npassword={shown}")


def welcome(settings: Settings, key: str) -> str:
    """Return the address at which a link's key lets a person choose a password."""
    return f"{settings.public_url}/-/welcome?key={key}"


def _account(one: Account) -> dict[str, Any]:
    return {
        "account": one.name,
        "kind": one.kind,
        "owner": one.owner,
        "since": one.since,
        "disabled": one.disabled,
        "has_password": one.has_password,
        "links": list(one.links),
        "issuers": list(one.issuers),
        "roles": [{"role": each.role, "on": each.place, "group": each in one.by_groups} for each in one.grants],
    }


def _token(one: Key) -> dict[str, Any]:
    return {
        "id": one.id,
        "account": one.account,
        "label": one.label,
        "scopes": list(one.scopes),
        "project": one.project,
        "since": one.since,
        "until": one.until,
        "seen": one.seen,
        "revoked": one.revoked,
    }


def _brought(role: dict[str, Any]) -> str:
    return " (by a group)" if role["group"] else ""


def _where(place: str) -> str:
    return "everything" if place == "*" else place


def _done(here: Here, facts: dict[str, Any], text: str) -> None:
    if here.as_json:
        show.as_json(facts)
    else:
        print(text)
