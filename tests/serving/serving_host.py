"""A model process that needs nothing but msgspec: what it does stands in tiny.json of its folder, or in the request.

The output of each row is ``value``, or what the column ``echo`` holds.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import msgspec


def tell(told, content):
    frame = msgspec.msgpack.encode(content)
    told.write(len(frame).to_bytes(4, "little") + frame)


def eat(size):
    """Hold some memory for longer than anybody takes to look."""
    kept = b"x" * size
    time.sleep(1.0 if kept else 0)


def answer(plan, request):
    columns, rows = request["columns"], request["n"]
    time.sleep(plan.get("sleep", 0) + rows * plan.get("each", 0))
    if (does := plan.get("does")) and ("when" not in plan or plan["when"] in columns.get("city", ())):
        columns = {**columns, "do": [does]}
    if "die" in columns.get("do", ()):
        os._exit(9)
    if "eat" in columns.get("do", ()):
        eat(plan["eats"])
    if "deaf" in columns.get("do", ()):
        os.close(0)
        os.close(plan["given"])
        threading.Timer(3600, print).start()
    if "hang" in columns.get("do", ()):
        time.sleep(3600)
    if "short" in columns.get("do", ()):
        rows -= 1
    if "null" in columns.get("do", ()):
        columns = {**columns, "echo": [None] * rows}
    if "wide" in columns.get("do", ()):
        return {"id": request["id"], "output": [[0.1, 0.2, 0.7]] * rows, "missing": [], "extra": []}
    if "fail" in columns.get("do", ()):
        return {
            "id": request["id"],
            "error": {"kind": "project", "what": "ZeroDivisionError", "column": "", "row": None},
        }
    if "odd" in columns.get("do", ()):
        return {"id": request["id"], "error": {"kind": "rows", "what": "not a day", "column": "do", "row": 0}}
    if request["op"] == "explain":
        return explained(plan, request["id"], rows)
    output = [[value] for value in columns.get("echo", [plan.get("value", 0.5)] * rows)]
    missing = [name for name in plan.get("needs", ()) if name not in columns]
    return {"id": request["id"], "output": output[:rows], "missing": missing, "extra": []}


def explained(plan, number, rows):
    """Explain the value by ``age``, which adds 0.125, as slowly as the plan says."""
    time.sleep(plan.get("ponder", 0))
    if "lacks" in plan:
        what = {"kind": "absent", "what": f"The package {plan['lacks']} is not installed.", "column": "", "row": None}
        return {"id": number, "error": what}
    said = {"columns": ["age"], "base": [plan.get("value", 0.5) - 0.125], "contributions": [[[0.125]]] * rows}
    about = {"method": "by hand", "scale": "probability", "error": None, "asked": 0, "cost": 0.5, "note": ""}
    return {"id": number, "explanation": said | about, "output": [], "missing": [], "extra": []}


def main():
    given, told = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    plan = json.loads((Path(sys.argv[-1]) / "tiny.json").read_text())
    time.sleep(plan.get("start", 0))
    eat(plan.get("begins_with", 0))
    if "fails" in plan:
        tell(told, {"error": {"what": plan["fails"]}})
        sys.exit(1)
    plan["given"] = given.fileno()
    tell(told, {"ready": True, "columns": {"age": "Int64", "city": "String"}})
    while len(head := given.read(4)) == 4:
        tell(told, answer(plan, msgspec.msgpack.decode(given.read(int.from_bytes(head, "little")))))


if __name__ == "__main__":
    main()
