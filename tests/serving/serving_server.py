"""The inference server with tiny model processes, or real ones: ``serving_server.py HOME PORT CONTROL SETTINGS``."""

import json
import sys
from pathlib import Path

from orrery.serving.channel import spawn
from orrery.serving.door import Limits
from orrery.serving.process import serve
from orrery.settings import load

HOST = str(Path(__file__).with_name("serving_host.py"))


def main():
    home, port, control = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    given = json.loads(sys.argv[4])
    limits = {name: given.pop(name) for name in Limits.__struct_fields__ if name in given}
    replica = given.pop("replica", 0)
    spawns = {"real": spawn, "warm": None}
    tiny = lambda argv, memory: spawn([argv[0], HOST, *argv[3:]], memory)  # noqa: E731
    full = "shed" if "shed" in sys.argv else "refuse"
    return serve(
        load(home, serving_port=port, port=control, replay="replay" in sys.argv, journal_full=full, **given),
        limits=Limits(**limits) if limits else None,
        replica=replica,
        spawn=next((spawns[option] for option in sys.argv if option in spawns), tiny),
    )


if __name__ == "__main__":
    sys.exit(main())
