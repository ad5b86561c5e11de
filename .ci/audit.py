"""Ask the advisory service about what is installed: known vulnerabilities fail, a service out of reach is said."""

from __future__ import annotations

import json
import subprocess
import sys

ACCEPTED: dict[str, str] = {}
"""Advisory -> why it does not touch orrery, and until when that was looked at."""


def main() -> int:
    """Return the exit code: 1 for a known vulnerability that nobody has accepted."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--timeout", "30"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        asked = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
        why = done.stderr.strip().splitlines()[-1:] if isinstance(error, ValueError | KeyError) else [str(error)]
        print(f"not run: the advisory service cannot be reached: {' '.join(why)[:300]}")
        return 0
    known = [one for one in asked if "skip_reason" not in one]
    if not known:
        print(f"not run: the advisory service knows none of the {len(asked)} packages: it is not the public one.")
        return 0
    found = [(one["name"], one["version"], vuln["id"]) for one in known for vuln in one["vulns"]]
    for name, version, id_ in found:
        print(f"{name} {version}: {id_}" + (f" (accepted: {ACCEPTED[id_]})" if id_ in ACCEPTED else ""))
    print(
        f"{len(known)} packages were looked at, {len(asked) - len(known)} are not known there; {len(found)} advisories."
    )
    return int(any(id_ not in ACCEPTED for _, _, id_ in found))


if __name__ == "__main__":
    sys.exit(main())
