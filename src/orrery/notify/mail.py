"""Mail, by SMTP: one message for one person, with an id that stays the same when it is sent again."""

from __future__ import annotations

import ipaddress
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from orrery.errors import NotUnderstood, OrreryError
from orrery.timeline.clock import SystemClock

_SECONDS = 30.0
_TODO = "Write smtps://USER@HOST/?from=ADDRESS or smtp://HOST:25/?from=ADDRESS."


@dataclass(frozen=True)
class Server:
    """Who takes mail.

    Parameters
    ----------
    host, port, tls : where; ``tls`` from the first byte on. Without it, only loopback is spoken to in the clear.
    user, password_file : who signs in, and the file with the password; empty for nobody.
    sender : address that mail comes from.
    """

    host: str
    port: int
    tls: bool
    user: str
    password_file: str
    sender: str


def server_of(url: str, password_file: str = "") -> Server:
    """Read where mail is sent from a setting.

    Raises
    ------
    NotUnderstood
        If that is not such an address, or holds a password.

    Examples
    --------
    >>> server_of("smtps://mail.example.org/?from=orrery@example.org").port
    465
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    try:
        port = parts.port or (465 if parts.scheme == "smtps" else 25)
    except ValueError:
        port = 0
    sender = query.pop("from", [""])[-1]
    odd = query or parts.path not in ("", "/") or parts.scheme not in ("smtp", "smtps")
    if odd or not port or not parts.hostname or "@" not in sender or not url.isprintable():
        raise NotUnderstood("ORRERY_MAIL is not understood.", todo=_TODO)
    if parts.password is not None:
        raise NotUnderstood("ORRERY_MAIL holds a password.", todo="Put it into a file: ORRERY_MAIL_PASSWORD.")
    if parts.username and not password_file:
        raise NotUnderstood("ORRERY_MAIL names a user.", todo="Put the password into a file: ORRERY_MAIL_PASSWORD.")
    if password_file and not Path(password_file).is_file():
        raise NotUnderstood("There is no file where ORRERY_MAIL_PASSWORD says.")
    return Server(parts.hostname, port, parts.scheme == "smtps", parts.username or "", password_file, sender)


def send(server: Server, address: str, subject: str, text: str, id_: str) -> str:
    """Send one message and return what the server said.

    Raises
    ------
    OrreryError
        If it was not taken; the address is not in what is said.
    """
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"] = server.sender, address
    message["Subject"] = " ".join(subject.split())[:200]
    message["Date"] = format_datetime(SystemClock().now())
    message["Message-ID"] = f"<{id_}@{server.sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    try:
        with _connected(server) as smtp:
            if server.user:
                smtp.login(server.user, Path(server.password_file).read_text().strip())
            smtp.send_message(message, server.sender, [address])
    except smtplib.SMTPRecipientsRefused as error:
        code = next((one[0] for one in error.recipients.values()), 0)
        raise OrreryError(f"The mail server refused the address ({code}).") from None
    except smtplib.SMTPResponseException as error:
        raise OrreryError(f"The mail server refused it ({error.smtp_code}).") from None
    except (smtplib.SMTPException, OSError) as error:
        raise OrreryError(f"The mail server cannot be used: {type(error).__name__}.") from None
    return "taken by the mail server"


def _connected(server: Server) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if server.tls:
        return smtplib.SMTP_SSL(server.host, server.port, timeout=_SECONDS, context=context)
    smtp = smtplib.SMTP(server.host, server.port, timeout=_SECONDS)
    if not _within(server.host):
        try:
            smtp.starttls(
                context=context
            )  # refused where the server has none: nothing goes over a network in the clear
        except BaseException:
            smtp.close()
            raise
    return smtp


def _within(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
