"""Chat, by Apprise, in a process of its own: ``python -m orrery.notify.chat`` reads what to send from standard input.

Apprise brings more than a hundred services and imports them all; here they cost nothing but when something is sent, end
when it takes too long, and reach public addresses only, whatever name or redirect leads there.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

from orrery.access.outgoing import is_public
from orrery.errors import NotAllowed, NotUnderstood, OrreryError

SECONDS = 45.0
LOCAL = ("dbus", "file", "gnome", "kde", "macosx", "qt", "glib", "syslog", "windows")
"""Schemes of Apprise that end on this machine."""


def check(url: str) -> None:
    """Refuse an address that nothing could be sent to.

    Raises
    ------
    NotAllowed
        If Apprise is not installed.
    NotUnderstood
        If it knows no such service.
    """
    if find_spec("apprise") is None:
        raise NotAllowed("Chats need Apprise, which is not installed.", todo="pip install 'orrery-ml[notify]'")
    if url.partition("://")[0].lower() in LOCAL:
        raise NotUnderstood("That would be shown on this machine only.", safe="Nothing was kept of it.")
    _run({"url": url, "check": True})


def send(url: str, subject: str, text: str, *, private: bool = False) -> str:
    """Send a message and return what is to be said of it.

    Raises
    ------
    OrreryError
        If it was not taken.
    """
    _run({"url": url, "subject": subject, "text": text, "private": private})
    return "taken by the chat"


def _run(order: dict[str, Any]) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "SSL_CERT_FILE") if name in os.environ}
    command = [sys.executable, "-I", "-m", "orrery.notify.chat"]
    try:
        done = subprocess.run(
            command, input=json.dumps(order), env=kept, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise OrreryError(f"The chat did not take it within {SECONDS:.0f} seconds.") from None
    if done.returncode == 3:
        raise NotUnderstood(
            "This is no address of a chat that Apprise knows.",
            safe="Nothing was kept of it.",
            todo="Its services: https://github.com/caronc/apprise/wiki",
        )
    if done.returncode == 4:
        raise NotAllowed(
            "The chat is within this network.", safe="Nothing was sent there.", todo="If that is meant, say --private."
        )
    if done.returncode != 0:
        raise OrreryError("The chat did not take it.")  # what Apprise says may hold the address


def main() -> int:
    """Carry out one order."""
    import apprise

    logging.disable(logging.CRITICAL)
    order = json.loads(sys.stdin.read())
    service = apprise.Apprise.instantiate(order["url"], suppress_exceptions=True)
    if service is None:
        return 3
    if order.get("check"):
        return 0
    refused = _only_public() if not order["private"] else []
    taken = service.notify(title=order["subject"], body=order["text"], body_format="text")
    return 4 if refused else 0 if taken else 1


def _only_public() -> list[str]:
    """Let every name of this process mean public addresses only; return what was refused, as it comes."""
    resolve, refused = socket.getaddrinfo, list[str]()

    def checked(*args: Any, **kwargs: Any) -> Any:
        found = resolve(*args, **kwargs)
        inner = [str(one[4][0]) for one in found if not is_public(str(one[4][0]))]
        if inner:
            refused.extend(inner)
            raise OSError("not a public address")
        return found

    socket.getaddrinfo = checked  # requests and urllib3 ask nothing else, also for a literal address
    return refused


if __name__ == "__main__":
    sys.exit(main())
