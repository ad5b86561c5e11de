"""What becomes of a push elsewhere: its commit is fetched, and goes on as if it had been pushed here."""

from __future__ import annotations

from orrery.errors import NotFound, NotUnderstood, OrreryError
from orrery.source.git import MAIN, NOTHING, SPEC, Source, record_push
from orrery.source.hooks import LARGEST_SPEC
from orrery.source.remote import Remote, fetch
from orrery.timeline.store import Timeline


def follow(source: Source, timeline: Timeline, remote: Remote, token: str, commit: str, actor: str) -> str:
    """Bring a commit of a remote's branch to main, once, and return in words what became of it.

    Parameters
    ----------
    commit : which; empty for the newest there is.
    actor : who pushed it.

    Raises
    ------
    NotUnderstood
        If the loop could not start from it: ``orrery.toml`` cannot be read, or is of another model.
    OrreryError
        If it cannot be fetched now.
    """
    name = remote.project
    newest = fetch(source, remote, token)
    commit = commit or newest
    try:
        if not source.reaches(name, commit, newest):
            return f"{commit[:7]} is not on {remote.branch} any more"
    except NotFound:
        return f"{commit[:7]} is not on {remote.branch} any more"
    old = source.tip(name)
    if old is not None and old != commit and commit != newest and not source.reaches(name, old, commit):
        return f"{commit[:7]} was here before"  # told late: what came after it is here
    _check(source, name, commit)
    subject = source.log(name, commit, limit=1)[0].message.partition("\n")[0][:200]
    why = f"Pushed to {remote.branch} of {remote.url}: {subject}"
    if old != commit and not source.move(name, old or NOTHING, commit, actor, why):
        raise OrreryError(f"The branch {MAIN} of {name} was moved by somebody else in this moment.")
    record_push(source, timeline, name, old or NOTHING, commit, actor, why)
    return f"{commit[:7]} is here"


def _check(source: Source, name: str, commit: str) -> None:
    """Refuse what a push here would be refused for."""
    from orrery.spec import parse

    sizes = {file.path: file.size for file in source.files(name, commit)}
    if sizes.get(SPEC, LARGEST_SPEC + 1) > LARGEST_SPEC:
        raise NotUnderstood(f"The commit {commit[:7]} has no {SPEC}, or one that is too large.")
    spec = parse(source.text(name, commit, SPEC))
    if spec.model.name != name:
        raise NotUnderstood(f"{SPEC} of {commit[:7]} says that the model is {spec.model.name!r}, and this is {name!r}.")
