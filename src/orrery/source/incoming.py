"""Webhooks of platforms: whether they are genuine, and which push they tell of. Nothing is believed before that.

Whoever has the secret can say that a commit was pushed, and by whom; the commit itself comes from the remote that an
operator has set.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orrery.access.signatures import sign
from orrery.errors import NotUnderstood

PLATFORMS = ("github", "gitlab", "gitea", "bitbucket")
TOLERANCE = 300.0
"""Seconds that the time in a signature may be off."""
_COMMIT = re.compile(r"[0-9a-f]{40}")

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Push:
    """What a webhook tells.

    Parameters
    ----------
    repository : path of the repository on its server, in small letters.
    branch, commit : what was pushed, and what its newest commit is now.
    actor : who pushed, as ``github:LOGIN``.
    """

    repository: str
    branch: str
    commit: str
    actor: str


def genuine(platform: str, headers: Headers, body: bytes, secret: str, now: float) -> bool:
    """Say whether a request was signed with a secret.

    Parameters
    ----------
    headers : by names in small letters.
    now : seconds since 1970.
    """
    hexed = hmac.digest(secret.encode(), body, "sha256").hex()
    if platform == "github":
        return bool(secret) and _same(headers.get("x-hub-signature-256", ""), f"sha256={hexed}")
    if platform == "bitbucket":
        return bool(secret) and _same(headers.get("x-hub-signature", ""), f"sha256={hexed}")
    if platform == "gitea":
        shown = headers.get("x-forgejo-signature", headers.get("x-gitea-signature", ""))
        return bool(secret) and _same(shown, hexed)
    if platform == "gitlab":
        if "webhook-signature" in headers:
            return bool(secret) and _standard(headers, body, secret, now)
        return bool(secret) and _same(headers.get("x-gitlab-token", ""), secret)
    return False


def identity(platform: str, headers: Headers, body: bytes) -> str:
    """Return what makes a request the one that it is: only what is signed counts, so that no new id makes it another.

    Of most platforms only the body is signed, and it names the commits before and after.
    """
    if platform == "gitlab" and "webhook-signature" in headers:
        return hashlib.sha256(headers["webhook-id"].encode()).hexdigest()
    return hashlib.sha256(body).hexdigest()


def push_of(platform: str, headers: Headers, payload: Any, branch: str) -> Push | None:
    """Return the push to a branch that a genuine request tells of; nothing if it tells of something else.

    Raises
    ------
    NotUnderstood
        If it says that it is a push, and does not look like one.
    """
    try:
        found = _READ[platform](headers, payload, branch)
    except (KeyError, TypeError, AttributeError, IndexError):
        raise NotUnderstood(f"This is no push as {platform} tells of one.", safe="Nothing was changed.") from None
    if found is None or found.branch != branch:
        return None
    if not _COMMIT.fullmatch(found.commit):
        raise NotUnderstood("The push names no commit.", safe="Nothing was changed.")
    return found if found.commit.strip("0") else None  # the branch was removed


def _github(headers: Headers, payload: Any, branch: str) -> Push | None:
    if headers.get("x-github-event") != "push":
        return None
    who = _actor("github", payload["sender"]["login"])
    return Push(_path(payload["repository"]["full_name"]), _branch(payload["ref"]), payload["after"], who)


def _gitea(headers: Headers, payload: Any, branch: str) -> Push | None:
    if headers.get("x-forgejo-event", headers.get("x-gitea-event")) != "push":
        return None
    pusher = payload["pusher"]
    who = _actor("gitea", pusher.get("login") or pusher["username"])
    return Push(_path(payload["repository"]["full_name"]), _branch(payload["ref"]), payload["after"], who)


def _gitlab(headers: Headers, payload: Any, branch: str) -> Push | None:
    if payload["object_kind"] != "push":
        return None
    who = _actor("gitlab", payload["user_username"])
    return Push(_path(payload["project"]["path_with_namespace"]), _branch(payload["ref"]), payload["after"], who)


def _bitbucket(headers: Headers, payload: Any, branch: str) -> Push | None:
    event = headers.get("x-event-key")
    if event == "repo:push":  # the cloud; a nickname can be changed by its owner, the id cannot
        who = _actor("bitbucket", payload["actor"].get("account_id") or payload["actor"]["uuid"])
        path = _path(payload["repository"]["full_name"])
        news = [one["new"] for one in payload["push"]["changes"] if one["new"] and one["new"]["type"] == "branch"]
        return next((Push(path, branch, one["target"]["hash"], who) for one in news if one["name"] == branch), None)
    if event == "repo:refs_changed":  # one's own server
        who, repository = _actor("bitbucket", payload["actor"]["name"]), payload["repository"]
        path = _path(f"{repository['project']['key']}/{repository['slug']}")
        changes = [one for one in payload["changes"] if one["ref"]["id"] == f"refs/heads/{branch}"]
        return next((Push(path, branch, one["toHash"], who) for one in changes), None)
    return None


_READ = {"github": _github, "gitlab": _gitlab, "gitea": _gitea, "bitbucket": _bitbucket}


def _standard(headers: Headers, body: bytes, secret: str, now: float) -> bool:
    """Check a signature of Standard Webhooks, as newer GitLab makes them."""
    id_, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not id_ or not at.isdecimal() or len(at) > 12 or abs(now - int(at)) > TOLERANCE:
        return False
    try:
        expected = sign(secret, id_, int(at), body)
    except NotUnderstood:
        return False
    return any(_same(one, expected) for one in headers["webhook-signature"].split())


def _same(shown: str, expected: str) -> bool:
    return hmac.compare_digest(shown.encode(), expected.encode())


def _branch(ref: str) -> str:
    return ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else ""


def _path(name: str) -> str:
    return name.strip("/").casefold()


def _actor(platform: str, login: str) -> str:
    name = "".join(letter for letter in login if letter.isprintable() and not letter.isspace())
    if not name:
        raise KeyError("login")
    return f"{platform}:{name}"[:200]
