"""The inference server with tiny model processes and a journal of JSON lines: ``serving_server.py HOME PORT CONTROL``."""

import os
import sys
from pathlib import Path

import msgspec

from orrery.serving.channel import spawn
from orrery.serving.process import serve
from orrery.settings import load

HOST = str(Path(__file__).with_name("serving_host.py"))


class LinesJournal:
    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.file = os.open(folder / "lines", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def append(self, model, environment, columns):
        if (self.folder / "full").exists():
            raise OSError(28, "No space left on device")
        os.write(
            self.file, msgspec.json.encode({"model": model, "environment": environment, "columns": columns}) + b"\n"
        )

    def close(self):
        (self.folder / "closed").touch()


def main():
    home, port, control = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    return serve(
        load(home, serving_port=port, port=control, replay="replay" in sys.argv),
        spawn=lambda argv: spawn([argv[0], HOST, argv[-1]]),
        journal=LinesJournal(home / "journal"),
        full="shed" if "shed" in sys.argv else "refuse",
    )


if __name__ == "__main__":
    os._exit(main())
