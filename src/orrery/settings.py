"""Where one orrery lives: its home folder, its database and the addresses it listens on.

Every setting comes from the environment or from a flag, never from a second file; :data:`SETTINGS` documents them all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from orrery.errors import NotUnderstood
from orrery.reach import check

LOOPBACK = "127.0.0.1"
ACCESS_FILE = "access-required"
"""File in the home folder of an orrery that was once started with access required."""

SETTINGS: dict[str, str] = {
    "ORRERY_HOME": "Folder that holds everything; default: orrery in the XDG data home.",
    "ORRERY_DATABASE": "SQLAlchemy URL of the database; default: SQLite in the home folder.",
    "ORRERY_LAKE": "URL or folder of the datasets and the prediction log; default: lake/ in the home folder.",
    "ORRERY_PORT": "Port of the control plane on loopback; default 8700.",
    "ORRERY_SERVING_PORT": "Port of the inference server on loopback; default 8701.",
    "ORRERY_GRPC_PORT": "Port of the inference server for gRPC on loopback; default: none, and no gRPC.",
    "ORRERY_REPLICAS": "Processes of the inference server, which share its ports; default 1.",
    "ORRERY_BODY_BYTES": "Bytes that one request to the inference server may have; default 33554432.",
    "ORRERY_BODY_SECONDS": "Seconds in which such a request must have arrived; default 20.",
    "ORRERY_REQUESTS_AT_ONCE": "Requests that the inference server works on at once; default 1024.",
    "ORRERY_JOURNAL_FSYNC": "When predictions are forced to the disk, to outlive a loss of power, too: always, "
    "interval (default; at most a fifth of a second is lost) or never. A killed process loses nothing either way.",
    "ORRERY_JOURNAL_FULL": "What happens to a request when its prediction cannot be written down: refuse (default), or "
    "shed the record and answer.",
    "ORRERY_WORKERS": "Worker processes; default 1.",
    "ORRERY_RAY": "Ray cluster on which `orrery score` predicts: host:port of its head, auto for the one on this "
    "machine, or none; default: what Ray's own RAY_ADDRESS says, else none.",
    "ORRERY_CLOCK": "system (default) or replay: time is what the file clock in the home folder says.",
    "ORRERY_ACCESS": "open: nobody signs in, whoever reaches loopback may do everything, and a name is what the caller "
    "says it is; or required: every request but those of health needs a session or a token. Default: open, until "
    "`orrery up` ran with required in this home; from then on required.",
    "ORRERY_LISTEN": "Address that the control plane listens on, or with a certificate all ports for TLS do; default "
    "127.0.0.1. Any beyond loopback needs ORRERY_ACCESS=required and ORRERY_URL.",
    "ORRERY_URL": "Address that people use, https://...: says that a proxy there does TLS and hands requests on, or "
    "with a certificate where this orrery itself does it. Default: none, and only loopback is answered.",
    "ORRERY_TLS_CERTIFICATE": "File with the certificate of ORRERY_URL and those that lead to its issuer (PEM): "
    "orrery does TLS itself. The other ports stay on loopback. Default: none.",
    "ORRERY_TLS_KEY": "File with the key of that certificate (PEM, without a password).",
    "ORRERY_TLS_PORT": "Port of the control plane for TLS; default 8443.",
    "ORRERY_SERVING_TLS_PORT": "Port of the inference server for TLS; default: none, and it answers on loopback alone.",
    "ORRERY_GRPC_TLS_PORT": "Port of the inference server for gRPC with TLS; default: none.",
    "ORRERY_SERVING_CLIENTS": "File with certificates of issuers (PEM): on its ports for TLS the inference server "
    "answers who shows a certificate of one of them; its common name is the account that asks. Default: none, and "
    "a token says who asks.",
    "ORRERY_HSTS_SECONDS": "How long browsers remember that the name in ORRERY_URL is reached by TLS alone "
    "(Strict-Transport-Security); default 31536000, a year; 0 where the name serves others in the clear.",
    "ORRERY_PUSH_BYTES": "Bytes that one push of git may have; default 1073741824.",
    "ORRERY_ARTIFACT_BYTES": "Bytes that one file sent to MLflow may have; default 5368709120.",
    "ORRERY_REQUESTS_A_MINUTE": "Requests to pages, API, git and MLflow that an account may send in a minute, or an "
    "address that shows nothing; default 6000; 0 for no limit. Trainings and inference are not counted.",
    "ORRERY_PUSHES_A_MINUTE": "Pushes of an account in a minute; default 60; 0 for no limit.",
    "ORRERY_TRIES_A_MINUTE": "Sign-ins, codes and wrong tokens or passwords of one address in a minute; "
    "default 60; 0 for no limit.",
    "ORRERY_CLIENT_HEADER": "Header whose last entry is the address of who asks, such as X-Forwarded-For: only if the "
    "proxy of ORRERY_URL sets it. Default: none, and all who come through the proxy are one address.",
    "ORRERY_PASSWORDS": "on (default): people may sign in with a password; off: only by OpenID Connect. Tokens work "
    "either way.",
    "ORRERY_SECOND_FACTOR": "Roles, with spaces between, that sign in with a password only together with a second "
    "factor, such as: administrator reviewer; default: none, and everybody chooses.",
    "ORRERY_OIDC_ISSUER": "Address of the provider of identities, to the letter as it calls itself; default: none, and "
    "people sign in with a password.",
    "ORRERY_OIDC_CLIENT_ID": "What this orrery is called at the provider.",
    "ORRERY_OIDC_CLIENT_SECRET_FILE": "File with the secret of that client; default: none, and PKCE alone proves that "
    "it is the same one.",
    "ORRERY_OIDC_SCOPES": "Scopes that are asked for; default: openid profile email.",
    "ORRERY_OIDC_GROUPS": "Which group of the provider brings which role: GROUP=ROLE or GROUP=ROLE@PLACE, with "
    "semicolons between; a place is a project, team/NAME or data/NAME; default: none.",
    "ORRERY_OIDC_GROUPS_CLAIM": "Claim that names the groups; default: groups.",
    "ORRERY_OIDC_NEWCOMERS": "Who may sign in for the first time: create (default): whom a group brings a role, and an "
    "account is made; link: who has an account with the address that the provider has verified; both: link, else "
    "create; none: nobody.",
    "ORRERY_PRIVACY_KEY": "File with the key that pseudonyms and encrypted values are made with, of 32 bytes or more; "
    "or awskms:///KEY, which opens the one in the home folder; default: privacy/key there, made where it is needed.",
    "ORRERY_ANCHORS": "Where the head of the chain is noted again and again, addresses with spaces between: "
    "git+URL, s3://..., gs://..., az://..., the path of a folder, tsa+https://... (a time-stamp authority). Default: "
    "nowhere.",
    "ORRERY_ANCHOR_EVERY": "How often, while events come: 1h, 1d (default) ...",
    "ORRERY_SECRETS_KEY": "File with keys that secrets of projects are encrypted with: the first line encrypts, the "
    "others still open; default: secrets/key in the home folder, made where it is needed.",
    "ORRERY_MAIL": "Where mail is sent: smtps://USER@HOST/?from=ADDRESS, or smtp:// with STARTTLS (on loopback "
    "without). Default: none, and no mail is sent.",
    "ORRERY_MAIL_PASSWORD": "File with the password of that user.",
    "ORRERY_NOTIFY": "Whether messages and webhooks are sent, and those that come in followed: yes (default), no, or "
    "replay: also where time is read from a file.",
    "ORRERY_WALLS": "Walls around the code of projects: auto (default; where the kernel allows them, and versions say "
    "where not), required (else it does not run) or off.",
    "ORRERY_PACKAGES": "Hosts (NAME or NAME:PORT) and folders that builds reach besides the package indexes that pip "
    "and uv are configured with and that requirements name, with blanks: where an index has its files elsewhere, and "
    "for indexes within this network that only a project names. Default: none.",
    "ORRERY_ACTOR": "Name that acts of this process are attributed to; default: the user of the operating system.",
}


@dataclass(frozen=True)
class Oidc:
    """The provider of identities, by OpenID Connect.

    Parameters
    ----------
    issuer : what it calls itself; empty for none.
    client_id, client_secret_file : what this orrery is called there, and the file with what proves it.
    scopes : that are asked for.
    groups : which group brings which role, as it was written.
    groups_claim : claim that names the groups.
    newcomers : who may sign in for the first time.
    """

    issuer: str = ""
    client_id: str = ""
    client_secret_file: str = ""
    scopes: str = "openid profile email"
    groups: str = ""
    groups_claim: str = "groups"
    newcomers: Literal["create", "link", "both", "none"] = "create"


@dataclass(frozen=True)
class Settings:
    """The settings of one orrery.

    Parameters
    ----------
    home : folder that holds everything.
    database : SQLAlchemy URL.
    lake : URL or folder of the Delta tables.
    port, serving_port : loopback ports of the control plane and of the inference server.
    grpc_port : loopback port of the inference server for gRPC; 0 for none.
    replicas : number of processes of the inference server.
    body_bytes, body_seconds : how large a request to the inference server may be, and how long it may take to arrive.
    requests_at_once : requests that the inference server works on at once.
    journal_fsync : when predictions are forced to the disk.
    journal_full : what happens to a request whose prediction cannot be written down.
    workers : number of worker processes.
    ray : address of the Ray cluster that predicts for whole datasets; empty for none.
    replay : whether time is read from the file ``clock`` in the home folder.
    access : whether requests need a session or a token.
    listen : address that the control plane listens on.
    url : address that people use, where a proxy or this orrery does TLS; empty where there is none.
    tls_certificate, tls_key : files of the certificate; empty where orrery does no TLS itself.
    tls_port, serving_tls_port, grpc_tls_port : ports for TLS; the latter two 0 for none.
    serving_clients : file with the issuers of the certificates that clients show; empty where they show none.
    privacy_key : file with the key of personal data, or address of the service that opens it; empty for the one in the
        home folder.
    anchors : addresses where the head of the chain is noted, with spaces between.
    anchor_every : seconds between two notes.
    secrets_key : file with the keys of secrets; empty for the one in the home folder.
    passwords : whether people may sign in with one.
    hsts_seconds : how long browsers remember that there is TLS.
    push_bytes, artifact_bytes : how large a push, and a file sent to MLflow, may be.
    requests_a_minute, pushes_a_minute, tries_a_minute : how often is not too often; 0 for no limit.
    client_header : header in which the proxy says the address of who asks; empty for none.
    second_factor : roles that must have a second factor, as it was written.
    oidc : the provider of identities.
    mail, mail_password : where mail is sent, and the file with the password; empty for no mail.
    notify : whether messages and webhooks are sent.
    walls : whether the code of projects runs within walls.
    packages : hosts and folders that builds reach besides the package indexes, with blanks.
    """

    home: Path
    database: str
    lake: str
    port: int = 8700
    serving_port: int = 8701
    grpc_port: int = 0
    replicas: int = 1
    body_bytes: int = 32 << 20
    body_seconds: int = 20
    requests_at_once: int = 1024
    journal_fsync: Literal["always", "interval", "never"] = "interval"
    journal_full: Literal["refuse", "shed"] = "refuse"
    workers: int = 1
    ray: str = ""
    replay: bool = False
    access: Literal["open", "required"] = "open"
    listen: str = "127.0.0.1"
    url: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_port: int = 8443
    serving_tls_port: int = 0
    grpc_tls_port: int = 0
    serving_clients: str = ""
    privacy_key: str = ""
    anchors: str = ""
    anchor_every: float = 86400.0
    secrets_key: str = ""
    passwords: Literal["on", "off"] = "on"
    hsts_seconds: int = 31_536_000
    push_bytes: int = 1 << 30
    artifact_bytes: int = 5 << 30
    requests_a_minute: int = 6000
    pushes_a_minute: int = 60
    tries_a_minute: int = 60
    client_header: str = ""
    second_factor: str = ""
    oidc: Oidc = Oidc()
    mail: str = ""
    mail_password: str = ""
    notify: Literal["yes", "no", "replay"] = "yes"

    @property
    def sends(self) -> bool:
        """Whether anything is sent: in a replay only where that is asked for."""
        return self.notify == "replay" or (self.notify == "yes" and not self.replay)

    walls: Literal["auto", "required", "off"] = "auto"
    packages: str = ""

    @property
    def control_url(self) -> str:
        """Address of the control plane."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def public_url(self) -> str:
        """Address of the pages as people have it."""
        return self.url or self.control_url

    @property
    def serving_url(self) -> str:
        """Address of the inference server."""
        return f"http://127.0.0.1:{self.serving_port}"

    def folder(self, name: str) -> Path:
        """Return a folder in the home, made if it is not there (``repos``, ``checkouts``, ``cache`` ...)."""
        path = self.home / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def environment(self) -> dict[str, str]:
        """Return the variables that make a child process see the same orrery."""
        return {
            "ORRERY_HOME": str(self.home),
            "ORRERY_DATABASE": self.database,
            "ORRERY_LAKE": self.lake,
            "ORRERY_PORT": str(self.port),
            "ORRERY_SERVING_PORT": str(self.serving_port),
            "ORRERY_GRPC_PORT": str(self.grpc_port),
            "ORRERY_REPLICAS": str(self.replicas),
            "ORRERY_BODY_BYTES": str(self.body_bytes),
            "ORRERY_BODY_SECONDS": str(self.body_seconds),
            "ORRERY_REQUESTS_AT_ONCE": str(self.requests_at_once),
            "ORRERY_JOURNAL_FSYNC": self.journal_fsync,
            "ORRERY_JOURNAL_FULL": self.journal_full,
            "ORRERY_WORKERS": str(self.workers),
            "ORRERY_RAY": self.ray or "none",
            "ORRERY_CLOCK": "replay" if self.replay else "system",
            "ORRERY_ACCESS": self.access,
            "ORRERY_LISTEN": self.listen,
            "ORRERY_URL": self.url,
            "ORRERY_TLS_CERTIFICATE": self.tls_certificate,
            "ORRERY_TLS_KEY": self.tls_key,
            "ORRERY_TLS_PORT": str(self.tls_port),
            "ORRERY_SERVING_TLS_PORT": str(self.serving_tls_port),
            "ORRERY_GRPC_TLS_PORT": str(self.grpc_tls_port),
            "ORRERY_SERVING_CLIENTS": self.serving_clients,
            "ORRERY_PRIVACY_KEY": self.privacy_key,
            "ORRERY_ANCHORS": self.anchors,
            "ORRERY_ANCHOR_EVERY": f"{self.anchor_every}s",
            "ORRERY_SECRETS_KEY": self.secrets_key,
            "ORRERY_PASSWORDS": self.passwords,
            "ORRERY_HSTS_SECONDS": str(self.hsts_seconds),
            "ORRERY_PUSH_BYTES": str(self.push_bytes),
            "ORRERY_ARTIFACT_BYTES": str(self.artifact_bytes),
            "ORRERY_REQUESTS_A_MINUTE": str(self.requests_a_minute),
            "ORRERY_PUSHES_A_MINUTE": str(self.pushes_a_minute),
            "ORRERY_TRIES_A_MINUTE": str(self.tries_a_minute),
            "ORRERY_CLIENT_HEADER": self.client_header,
            "ORRERY_SECOND_FACTOR": self.second_factor,
            "ORRERY_OIDC_ISSUER": self.oidc.issuer,
            "ORRERY_OIDC_CLIENT_ID": self.oidc.client_id,
            "ORRERY_OIDC_CLIENT_SECRET_FILE": self.oidc.client_secret_file,
            "ORRERY_OIDC_SCOPES": self.oidc.scopes,
            "ORRERY_OIDC_GROUPS": self.oidc.groups,
            "ORRERY_OIDC_GROUPS_CLAIM": self.oidc.groups_claim,
            "ORRERY_OIDC_NEWCOMERS": self.oidc.newcomers,
            "ORRERY_MAIL": self.mail,
            "ORRERY_MAIL_PASSWORD": self.mail_password,
            "ORRERY_NOTIFY": self.notify,
            "ORRERY_WALLS": self.walls,
            "ORRERY_PACKAGES": self.packages,
        }


def load(home: str | Path | None = None, **overrides: object) -> Settings:
    """Read the settings from the environment; a given home and overrides win.

    Raises
    ------
    NotUnderstood
        If a number is not a number, a choice is unknown, or a variable ``ORRERY_...`` is not one of ours.
    NotUnderstood, NotAllowed
        As :func:`orrery.reach.check`.
    """
    unknown = sorted(name for name in os.environ if name.startswith("ORRERY_") and name not in SETTINGS)
    unknown = [name for name in unknown if not name.startswith("ORRERY_STEP_")]
    if unknown:
        raise NotUnderstood(
            f"The environment variable {unknown[0]} is not a setting of orrery.",
            todo=f"Unset it, or use one of {', '.join(SETTINGS)}.",
        )
    root = Path(home or os.environ.get("ORRERY_HOME") or _default_home()).expanduser().absolute()
    given = os.environ if home is None or Path(os.environ.get("ORRERY_HOME", "")) == root else {}
    clock = _choice("ORRERY_CLOCK", "system", "replay")
    values: dict[str, object] = {
        "database": given.get("ORRERY_DATABASE") or f"sqlite:///{root / 'orrery.db'}",
        "lake": given.get("ORRERY_LAKE") or str(root / "lake"),
        "port": _number("ORRERY_PORT", 8700),
        "serving_port": _number("ORRERY_SERVING_PORT", 8701),
        "grpc_port": _number("ORRERY_GRPC_PORT", 0),
        "replicas": _number("ORRERY_REPLICAS", 1),
        "body_bytes": _number("ORRERY_BODY_BYTES", 32 << 20),
        "body_seconds": _number("ORRERY_BODY_SECONDS", 20),
        "requests_at_once": _number("ORRERY_REQUESTS_AT_ONCE", 1024),
        "journal_fsync": _choice("ORRERY_JOURNAL_FSYNC", "interval", "always", "never"),
        "journal_full": _choice("ORRERY_JOURNAL_FULL", "refuse", "shed"),
        "workers": _number("ORRERY_WORKERS", 1),
        "ray": _ray(),
        "replay": clock == "replay" or (root / "clock").exists(),
        # Who once required it does not lose it by forgetting a variable.
        "access": _choice("ORRERY_ACCESS", "required" if (root / ACCESS_FILE).exists() else "open", "open", "required"),
        "listen": os.environ.get("ORRERY_LISTEN") or LOOPBACK,
        "url": os.environ.get("ORRERY_URL", "").rstrip("/"),
        "tls_certificate": _path(os.environ.get("ORRERY_TLS_CERTIFICATE", "")),
        "tls_key": _path(os.environ.get("ORRERY_TLS_KEY", "")),
        "tls_port": _number("ORRERY_TLS_PORT", 8443),
        "serving_tls_port": _number("ORRERY_SERVING_TLS_PORT", 0),
        "grpc_tls_port": _number("ORRERY_GRPC_TLS_PORT", 0),
        "serving_clients": _path(os.environ.get("ORRERY_SERVING_CLIENTS", "")),
        "privacy_key": _path(given.get("ORRERY_PRIVACY_KEY", "")),
        "anchors": " ".join(given.get("ORRERY_ANCHORS", "").split()),
        "anchor_every": _duration("ORRERY_ANCHOR_EVERY", "1d"),
        "secrets_key": _path(given.get("ORRERY_SECRETS_KEY", "")),
        "passwords": _choice("ORRERY_PASSWORDS", "on", "off"),
        "hsts_seconds": _number("ORRERY_HSTS_SECONDS", 31_536_000),
        "push_bytes": _number("ORRERY_PUSH_BYTES", 1 << 30),
        "artifact_bytes": _number("ORRERY_ARTIFACT_BYTES", 5 << 30),
        "requests_a_minute": _number("ORRERY_REQUESTS_A_MINUTE", 6000),
        "pushes_a_minute": _number("ORRERY_PUSHES_A_MINUTE", 60),
        "tries_a_minute": _number("ORRERY_TRIES_A_MINUTE", 60),
        "client_header": os.environ.get("ORRERY_CLIENT_HEADER", "").strip().lower(),
        "second_factor": " ".join(os.environ.get("ORRERY_SECOND_FACTOR", "").split()),
        "oidc": _oidc(),
        "mail": os.environ.get("ORRERY_MAIL", ""),
        "mail_password": _path(os.environ.get("ORRERY_MAIL_PASSWORD", "")),
        "notify": _choice("ORRERY_NOTIFY", "yes", "no", "replay"),
        "walls": _choice("ORRERY_WALLS", "auto", "required", "off"),
        "packages": _packages(),
    }
    values.update({name: value for name, value in overrides.items() if value is not None})
    made = Settings(home=root, **values)  # type: ignore[arg-type]
    check(made)
    return made


def actor() -> str:
    """Return the name that acts of this process are attributed to."""
    import getpass

    if name := os.environ.get("ORRERY_ACTOR"):
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return user()


def user() -> str:
    """Return the user of the operating system, whatever the environment says."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"


def _default_home() -> Path:
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "orrery"


def _packages() -> str:
    words = os.environ.get("ORRERY_PACKAGES", "").split()
    for word in words:
        parts = urlsplit(f"//{word}")
        if not word.startswith("/") and (parts.netloc != word or not parts.hostname or "@" in word):
            raise NotUnderstood(f"ORRERY_PACKAGES has {word!r}.", todo="Give NAME, NAME:PORT or a folder.")
    return " ".join(words)


def _oidc() -> Oidc:
    def said(name: str, default: str = "") -> str:
        return os.environ.get(f"ORRERY_OIDC_{name}", "").strip() or default

    return Oidc(
        issuer=said("ISSUER"),
        client_id=said("CLIENT_ID"),
        client_secret_file=_path(said("CLIENT_SECRET_FILE")),
        scopes=said("SCOPES", Oidc.scopes),
        groups=said("GROUPS"),
        groups_claim=said("GROUPS_CLAIM", Oidc.groups_claim),
        newcomers=_choice("ORRERY_OIDC_NEWCOMERS", "create", "link", "both", "none"),  # type: ignore[arg-type]
    )


def _path(text: str) -> str:
    return str(Path(text).expanduser().absolute()) if text and "://" not in text else text


def _ray() -> str:
    address = os.environ.get("ORRERY_RAY") or os.environ.get("RAY_ADDRESS") or "none"
    return "" if address == "none" else address


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise NotUnderstood(f"{name} is {text!r}.", todo="Give a whole number.") from None


def _duration(name: str, default: str) -> float:
    from orrery.types import parse_duration

    seconds = parse_duration(os.environ.get(name) or default).total_seconds()
    if seconds <= 0:
        raise NotUnderstood(f"{name} is {os.environ[name]!r}.", todo="Give a length of time, such as 1d.")
    return seconds


def _choice(name: str, default: str, *others: str) -> str:
    text = os.environ.get(name) or default
    known = tuple(dict.fromkeys((default, *others)))
    if text not in known:
        raise NotUnderstood(f"{name} is {text!r}.", todo=f"Use {', '.join(known[:-1])} or {known[-1]}.")
    return text
