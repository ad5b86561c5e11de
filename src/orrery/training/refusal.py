"""What every part of compiling says where it cannot go on."""

from __future__ import annotations

from orrery.errors import OrreryError


class NotConvertible(OrreryError):
    """There is no way from this model to a graph; the reason stands on the version, which is served by its Python."""
