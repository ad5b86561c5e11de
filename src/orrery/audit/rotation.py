"""Replaces the keys of a home by new ones, in steps of which each leaves everything readable.

The new key is written before the old one; then everything is encrypted anew; then the old one is taken away. Killed at
any moment, both are there, and the next call begins again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from orrery.access.homekey import home_keys, write_keys
from orrery.data.personal import Privacy
from orrery.data.pseudonyms import at_a_service, wrapping_file, write_wrapping
from orrery.errors import NotAllowed
from orrery.settings import Settings


def replace_home_key(settings: Settings, seal_anew: Callable[[], int]) -> int:
    """Replace what the processes of one orrery know each other by; return how many values were encrypted anew.

    Parameters
    ----------
    settings : whose home.
    seal_anew : encrypts with the first key of the home what any of its keys opens.
    """
    write_keys(settings.home, [secrets.token_urlsafe(32), *home_keys(settings.home)])
    count = seal_anew()
    write_keys(settings.home, home_keys(settings.home)[:1])
    return count


def replace_privacy_key(settings: Settings, privacy: Privacy) -> int:
    """Replace what the keys of encrypted values are encrypted with; return how many those are.

    Pseudonyms stay: they are made with the privacy key itself, and another one would make another name of everybody.

    Raises
    ------
    NotAllowed
        If a key service keeps the privacy key.
    """
    if at_a_service(settings):
        raise NotAllowed(
            "The privacy key is at a key service, which replaces what it encrypts it with by itself.",
            safe="Nothing was changed.",
            todo="Let the service rotate its key; what it opened before, it opens after.",
        )
    _ = privacy.pseudonyms  # refuses now if the privacy key itself cannot be read
    file = wrapping_file(settings)
    known = file.read_text().split() if file.exists() else []
    fresh = secrets.token_urlsafe(48)
    write_wrapping(settings, [fresh, *known])
    count = privacy.sealed.wrapped_anew()
    write_wrapping(settings, [fresh])
    return count
