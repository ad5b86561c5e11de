"""Repositories elsewhere that projects are fetched from: which, and with what they are opened.

Only who may operate a project says where it comes from; what a webhook says of addresses is never used.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from orrery.access.outgoing import resolved, split
from orrery.access.vault import Vault
from orrery.errors import NotFound, NotUnderstood, OrreryError
from orrery.source.git import MAIN, Source, environment
from orrery.timeline.event import Draft
from orrery.timeline.store import Timeline
from orrery.types import check_name, format_instant

SECONDS = 180.0
"""How long a fetch may take."""
HELD = "refs/orrery/remote"
"""Where what was fetched is kept, apart from the branches of the project."""
_BRANCH_TODO = "Give the name of a branch, such as main."

_remotes = sa.table(
    "source_remotes",
    *(
        sa.column(one)
        for one in ("project", "url", "branch", "user", "token", "secret", "private", "since", "by")
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Remote:
    """Where a project comes from.

    Parameters
    ----------
    project, url, branch : which, the address of its repository, and the branch that starts the loop.
    user : name that is shown with the token.
    private : whether the address may be within one's own network.
    since, by : when and by whom it was set.
    """

    project: str
    url: str
    branch: str
    user: str
    private: bool
    since: str
    by: str

    @property
    def path(self) -> str:
        """The path of the repository on its server, as a platform names it."""
        return urlsplit(self.url).path.strip("/").removesuffix(".git").casefold()


class Remotes:
    """The remotes of one orrery; may be shared by threads.

    Parameters
    ----------
    timeline : where every change is written down, in the same transaction.
    vault : seals tokens and secrets.
    """

    def __init__(self, timeline: Timeline, vault: Vault) -> None:
        self._timeline, self._vault = timeline, vault

    def all(self) -> list[Remote]:
        """Return all remotes, by project."""
        with self._timeline.reading() as connection:
            return [_remote(row) for row in connection.execute(sa.select(_remotes).order_by(_remotes.c.project))]

    def find(self, project: str) -> Remote | None:
        """Return where a project comes from; nothing if it is only pushed to here."""
        return next((one for one in self.all() if one.project == project), None)

    def get(self, project: str) -> Remote:
        """Return the same.

        Raises
        ------
        NotFound
            If it has none.
        """
        if (found := self.find(project)) is None:
            raise NotFound(f"{project} has no remote.", todo=f"orrery remote set {project} URL")
        return found

    def opened(self, project: str) -> tuple[str, str]:
        """Return the token, and the secret of its webhooks; empty where there is none."""
        query = sa.select(_remotes.c.token, _remotes.c.secret).where(_remotes.c.project == project)
        with self._timeline.reading() as connection:
            row = connection.execute(query).first()
        if row is None:
            return "", ""
        use = f"remote/{project}"
        return self._vault.opened(row.token, f"{use}/token"), self._vault.opened(row.secret, f"{use}/secret")

    def sealed_anew(self) -> int:
        """Encrypt all tokens and secrets with the key that the home has now; return how many remotes there are."""
        found = self.all()
        for one in found:
            token, secret = self.opened(one.project)
            use = f"remote/{one.project}"
            fresh = {
                "token": self._vault.seal(token, f"{use}/token"),
                "secret": self._vault.seal(secret, f"{use}/secret"),
            }
            with self._timeline.writing() as connection:
                connection.execute(sa.update(_remotes).where(_remotes.c.project == one.project).values(fresh))
        return len(found)

    def set(
        self,
        project: str,
        url: str,
        *,
        by: str,
        why: str,
        branch: str = MAIN,
        user: str = "",
        token: str = "",
        secret: str = "",
        private: bool = False,
    ) -> tuple[Remote, str]:
        """Say where a project comes from; the second of what is returned is the secret of its webhooks, shown once.

        Raises
        ------
        NotUnderstood
            If the project, the address or the branch cannot be one.
        """
        check_name(project, "project")
        _check(url, branch, private)
        secret = secret or secrets.token_urlsafe(32)
        row = {
            "project": project,
            "url": url,
            "branch": branch,
            "user": user,
            "token": self._vault.seal(token, f"remote/{project}/token"),
            "secret": self._vault.seal(secret, f"remote/{project}/secret"),
            "private": private,
            "since": format_instant(datetime.now(UTC)),
            "by": by,
        }
        with self._timeline.writing() as connection:
            connection.execute(sa.delete(_remotes).where(_remotes.c.project == project))
            connection.execute(sa.insert(_remotes).values(row))
            facts = {"project": project, "url": url, "branch": branch, "private": private, "there": True}
            self._tell(connection, by, why, facts)
        return self.get(project), secret

    def remove(self, project: str, *, by: str, why: str) -> None:
        """Fetch a project from nowhere any more.

        Raises
        ------
        NotFound
            If it has no remote.
        """
        gone = self.get(project)
        with self._timeline.writing() as connection:
            connection.execute(sa.delete(_remotes).where(_remotes.c.project == project))
            self._tell(connection, by, why, {"project": project, "url": gone.url, "there": False})

    def _tell(self, connection: sa.Connection, by: str, why: str, data: dict[str, Any]) -> None:
        # The event of a project that does not exist yet stands beside: a model begins with its first commit.
        model = data["project"] if data["project"] in self._timeline.models() else ""
        draft = Draft(kind="remote", actor=by, why=why, model=model, data=data)
        self._timeline.append([draft], connection=connection)


def fetch(source: Source, remote: Remote, token: str) -> str:
    """Bring what a remote's branch has into the repository of its project, and return its newest commit.

    The name of the server is resolved once and checked, git is told to connect to that address, and follows nothing
    that leads elsewhere.

    Raises
    ------
    NotAllowed
        If the address is within this network, and was not said to be.
    OrreryError
        If it cannot be fetched.
    """
    path = source.create(remote.project)
    held = f"{HELD}/{remote.branch}"
    command = ["git", f"--git-dir={path}", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--force"]
    command += [
        "--no-recurse-submodules",
        "--no-auto-maintenance",
        "--",
        remote.url,
        f"+refs/heads/{remote.branch}:{held}",
    ]
    with _opening(source.settings.home, remote, token) as (config, variables):
        env = environment(source.settings, path, config) | variables
        process = subprocess.Popen(
            command, env=env, cwd=path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        try:
            _, said = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise OrreryError(f"The remote did not give its commits within {SECONDS:.0f} seconds.") from None
    if process.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines()
        reason = next((line for line in lines if line.startswith(("fatal:", "error:"))), "".join(lines[-1:]))
        raise OrreryError(f"git could not fetch: {reason.replace(token, '***') if token else reason}"[:300])
    return source.resolve(remote.project, held)


@contextlib.contextmanager
def _opening(home: Path, remote: Remote, token: str) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Give the configuration and variables that let git reach this one address, with this one token."""
    scheme = urlsplit(remote.url).scheme
    config = {
        "protocol.allow": "never",
        f"protocol.{scheme}.allow": "always",
        "http.followRedirects": "false",
        "http.proxy": "",
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": "30",
        "credential.helper": "",
    }
    if scheme == "file":
        yield config, {}
        return
    _, host, port = split(remote.url, schemes=("https", "ssh"), private=remote.private)
    addresses = resolved(host, port, private=remote.private)
    if scheme != "ssh":
        if host not in addresses:
            config["http.curloptResolve"] = f"{host}:{port}:{','.join(addresses)}"
        if token:
            basic = base64.b64encode(f"{remote.user or 'git'}:{token}".encode()).decode()
            config["http.extraHeader"] = f"Authorization: Basic {basic}"
        yield config, {}
        return
    with tempfile.TemporaryDirectory(prefix="orrery-ssh-") as folder:
        key = Path(folder, "key")
        key.touch(0o600)
        key.write_text(token.rstrip() + "\n")
        known = home / "known_hosts"
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(key),
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(known),
            "HostName": addresses[0],
            "HostKeyAlias": host,
            "ProxyCommand": "none",
            "ConnectTimeout": "20",
            "User": remote.user or "git",
        }
        words = " ".join(f"-o {name}={value}" for name, value in options.items())
        yield config, {"GIT_SSH_COMMAND": f"ssh -F none {words}", "GIT_SSH_VARIANT": "ssh"}


def _check(url: str, branch: str, private: bool) -> None:
    if private and url.startswith("file:///") and url.isprintable():
        pass
    elif "://" not in url:
        raise NotUnderstood(
            f"{url!r} is not the address of a repository.", todo="Give https://HOST/PATH or ssh://HOST/PATH."
        )
    else:
        split(url, schemes=("https", "ssh"), private=private)
        if urlsplit(url).query or urlsplit(url).fragment:
            raise NotUnderstood("The address of a repository ends with its path.")
    done = subprocess.run(["git", "check-ref-format", f"refs/heads/{branch}"], capture_output=True)
    if done.returncode != 0 or len(branch) > 200:
        raise NotUnderstood(f"{branch!r} is no name of a branch.", todo=_BRANCH_TODO)


def _remote(row: sa.Row[Any]) -> Remote:
    fields = row._mapping
    known = ("project", "url", "branch", "user", "since", "by")
    return Remote(**{one: fields[one] for one in known}, private=bool(row.private))
