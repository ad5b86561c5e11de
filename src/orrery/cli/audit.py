"""What somebody did, what served when and who let it, and the whole chain for who checks it elsewhere: ``audit``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orrery.cli import show
from orrery.cli.command import Here, ModelName, command
from orrery.cli.timeline import check_kinds, line
from orrery.errors import NotAllowed

if TYPE_CHECKING:
    from orrery.app import Orrery
    from orrery.audit.deeds import Deeds
    from orrery.audit.served import Served, Word
    from orrery.timeline.event import Event

Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Only from this instant on.")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only until then; a day is all of it.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="What people did; what served when and who let it; the whole chain.")
    command(group, alone=True)(audit)
    command(group)(served)
    command(group)(who)
    command(group)(export)
    app.add_typer(group, name="audit")


def audit(
    here: Here,
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="What this person did, under whichever of their names.")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(metavar="KIND", help="Only this kind; may be repeated.")] = None,
    since: Since = None,
) -> None:
    """Show what people did, in all projects: `orrery audit --by mara`; what was denied: `--kind denied`.

    `orrery audit who` sums up what one person did, `orrery audit served` what answered and who let it.
    """
    orrery = here.orrery()
    if kind:
        check_kinds(kind)
    for event in _acts(orrery, by, kind or [], since):
        if here.as_json:
            show.as_json(event.to_json())
        else:
            print(line(event, with_model=True))


def served(
    here: Here,
    model: ModelName,
    at: Annotated[str, typer.Option("--at", metavar="TIME", help="An instant, or a day: all that answered on it.")],
    env: Annotated[str, typer.Option("--env", metavar="NAME", help="Only there; default: everywhere.")] = "",
) -> None:
    """Show what answered at a time, who let it, as what, and on what evidence.

    Every line names the event that says so. With --json: one object for each version that answered.
    """
    found = here.orrery().served(model, at, env)
    for one in found:
        if here.as_json:
            show.as_json(show.plain(one))
        else:
            _tell_served(one)
    if not found and not here.as_json:
        print(f"Nothing of {model} answered{f' in {env}' if env else ' anywhere'} then.")


def who(
    here: Here,
    name: Annotated[str, typer.Argument(metavar="NAME", help="An account, or any name that belongs to it.")],
    since: Since = None,
    until: Until = None,
) -> None:
    """Show what somebody did: acts, denied attempts, sign-ins, reads, and the roles that they held.

    With --json: one object.
    """
    from orrery.audit.served import period

    begin = period(since)[0] if since else None
    end = period(until)[1] if until else None
    found = here.orrery().deeds(name, begin, end)
    if here.as_json:
        events = {"events": [one.to_json() for one in found.events], "about": [one.to_json() for one in found.about]}
        show.as_json({**show.plain(found), **events})
    else:
        _tell_deeds(found)


def export(
    here: Here, file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that is not there yet.")]
) -> None:
    """Write the whole chain to a file, one event a line, and say the hash of the last.

    Note it elsewhere: `orrery verify FILE --head HASH` shows that nothing was changed, removed or cut off since.
    """
    orrery = here.orrery()
    if file.exists():
        raise NotAllowed(f"{file} is there already.", safe="It was left alone.", todo="Name another.")
    orrery.note_read_of_chain(here.actor)
    _export(here, orrery, file)


def _acts(orrery: Orrery, by: str | None, kinds: list[str], since: str | None) -> Iterator[Event]:
    from orrery.types import parse_instant

    begin = parse_instant(since) if since else None
    person = cache(orrery.accounts.person)
    for event in orrery.timeline.read(kinds=kinds):
        if begin is not None and event.occurred_at < begin:
            continue
        if by is None:
            if kinds or not event.actor.startswith("orrery/"):
                yield event
        elif person(event.actor).casefold() == person(by).casefold():
            yield event


def _tell_served(one: Served) -> None:
    until = f"until {show.minute(one.until)}" if one.until else "and still does"
    print(f"{one.environment}: {one.model} v{one.version}, since {show.minute(one.since)}, {until}")
    show.columns(_facts(one), indent="  ")


def _facts(one: Served) -> Iterator[tuple[str, str]]:
    roles = f" ({', '.join(one.by_roles)})" if one.by_roles else ""
    yield "decided", f"{one.why} {one.by}{roles}, #{one.event}"
    yield "because", f"{one.change}: {one.cause}"
    message = one.message.partition("\n")[0]
    yield "code", f"{one.commit[:12]} by {one.author or '-'}, pushed by {one.pushed_by or '-'}: {message}"
    for each in one.data:
        yield "data", f"{each.dataset}@v{each.version}  {each.digest}".rstrip()
    yield "evidence", one.evidence
    for gate in one.gates:
        over = f", OVERRIDDEN by {gate.overridden_by}" if gate.overridden_by else ""
        yield "gate", f"{gate.name}: {gate.verdict}{over}. {gate.why}"
    yield "needed", ", ".join(one.needs) or "nothing"
    for word in one.said:
        yield "said", _word(word)
    for beside in one.beside:
        yield "beside", beside
    if one.deleted:
        yield "deleted", f"{show.minute(one.deleted['at'])} by {one.deleted['by']}: {one.deleted['why']}"


def _word(word: Word) -> str:
    verb = {
        "approved": "approved",
        "rejected": "rejected",
        "changes_requested": "asked for changes of",
        "review_overridden": "let in WITHOUT REVIEW",
    }[word.kind]
    if word.gate:
        verb = f"overrode the gate {word.gate} of"
    roles = ", ".join(word.roles) or ("no role" if word.known else "no account: a name that was said")
    about = f"it as {word.role}" if word.role else "it"
    stands = "" if word.stands else "; of OTHER evidence than what answered"
    return f'{show.minute(word.at)} {word.actor} ({roles}) {verb} {about}: "{word.why}"{stands}, #{word.event}'


def _tell_deeds(found: Deeds) -> None:
    others = ", ".join(name for name in found.names if name != found.person)
    print(f"{found.person}{f', also {others}' if others else ''}")
    print(
        f"  {found.signed_in} sign-ins, {found.denied} denied attempts, {found.reads} reads, {len(found.events)} events"
    )
    for role in found.roles:
        until = f" until {show.minute(role.until)} (taken by {role.taken_by})" if role.until else ""
        print(f"  {role.says} since {show.minute(role.since)}{until}, given by {role.by}: {role.why}")
    for title, events in (("What they did", found.events), ("What others did to their account", found.about)):
        if events:
            print(f"\n{title}:")
        for event in events:
            print(f"  {line(event, with_model=True)}")


def _export(here: Here, orrery: Orrery, file: Path) -> None:
    import json

    from orrery.timeline.verify import exported, verify

    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with fresh.open("x", encoding="utf-8") as out:
            for event in orrery.timeline.read():
                out.write(json.dumps(event.to_json(), ensure_ascii=False) + "\n")
            out.flush()
            os.fsync(out.fileno())
        verdict = verify(exported(fresh))
        try:
            os.link(fresh, file)  # whole, and never over a file that is there
        except FileExistsError:
            raise NotAllowed(f"{file} is there already.", safe="It was left alone.", todo="Name another.") from None
    finally:
        fresh.unlink(missing_ok=True)
    facts = {"file": str(file), "events": verdict.events, "head": verdict.head, "holds": verdict.holds}
    if here.as_json:
        show.as_json(facts)
    else:
        print(f"{verdict.events} events in {file}; the last has the hash\n  {verdict.head}")
    if not verdict.holds:
        raise NotAllowed("The chain does not hold.", safe="It was written as it is.", todo=f"orrery verify {file}")
