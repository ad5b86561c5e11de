"""``python -m orrery.web``: the control plane of the orrery that the environment names, on loopback."""

from __future__ import annotations

from orrery.web.server import main

if __name__ == "__main__":
    main()
