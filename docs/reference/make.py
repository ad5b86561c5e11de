"""Write the pages of the reference from the code; with ``--check``, say which are not current.

``python docs/reference/make.py [--check]``
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from orrery.cli.main import app
from orrery.settings import SETTINGS
from orrery.spec import json_schema
from orrery.timeline.kinds import KINDS

HERE = Path(__file__).parent
SHARED = {"--home", "--as", "--json", "--help"}


def pages() -> dict[str, str]:
    """Return the name and the text of each page."""
    return {"cli.md": cli(), "settings.md": settings(), "events.md": events(), "project.md": project()}


def cli() -> str:
    """Return the page of the commands."""
    root: Any = typer.main.get_command(app)
    lines = [
        "# Commands",
        "",
        "`--home DIR`, `--as NAME` and `--json` are understood before every command and after it: which orrery, who",
        "acts, and one JSON object a line for scripts. What overrides or removes wants a reason: `--why`.",
        "",
        "Exit codes: 0 done; 1 failed or refused, and standard error says what happened, what is safe and what to do",
        '(with `--json`: `{"error": {"what": ..., "safe": ..., "todo": ...}}`); 2 the command line was not understood.',
    ]
    for words, command in commands(root, "orrery"):
        lines += ["", f"## `{usage(words, command)}`", "", paragraphs(command.help)]
        rows = [row for parameter in command.params if (row := described(parameter))]
        if rows:
            lines += ["", "| | |", "|---|---|", *rows]
    return "\n".join(lines) + "\n"


def commands(group: Any, words: str) -> Iterator[tuple[str, Any]]:
    """Walk the tree of commands."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{words} {name}", command
            yield from commands(command, f"{words} {name}")
        else:
            yield f"{words} {name}", command


def usage(words: str, command: Any) -> str:
    """Return a command with its arguments and the options that it must have."""
    parts = [words]
    for parameter in command.params:
        name = parameter.metavar or parameter.name.upper()
        if parameter.param_type_name == "argument":
            parts.append(name if parameter.required else f"[{name}]")
        elif parameter.required:
            parts.append(f"{parameter.opts[0]} {name}")
    return " ".join(parts)


def described(parameter: Any) -> str:
    """Return the table row of an argument or option; empty for those that every command has."""
    if not getattr(parameter, "help", None) or set(parameter.opts) & SHARED:
        return ""
    name = parameter.metavar or ""
    if parameter.param_type_name == "option":
        name = f"{parameter.opts[0]} {name}".strip()
    shown = parameter.default not in (None, False, "", ()) and "default" not in parameter.help
    default = f" Default: `{parameter.default}`." if shown else ""
    return f"| `{name}` | {parameter.help}{default} |"


def paragraphs(text: str) -> str:
    """Return a docstring as Markdown."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def settings() -> str:
    """Return the page of the settings."""
    rows = [f"| `{name}` | {text} |" for name, text in SETTINGS.items()]
    return "\n".join(
        [
            "# Settings",
            "",
            "Where one orrery lives and listens comes from the environment or from a flag, never from a second file.",
            "",
            "| variable | meaning |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def events() -> str:
    """Return the page of the kinds of events."""
    rows = [f"| `{name}` | {text.replace('|', '/')} |" for name, text in KINDS.items()]
    return "\n".join(
        [
            "# Kinds of events",
            "",
            "What stands on the timeline. A kind is never removed: old timelines replay.",
            "",
            "| kind | meaning |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def project() -> str:
    """Return the page of ``orrery.toml``."""
    schema = json_schema()
    lines = [
        "# The project file `orrery.toml`",
        "",
        "An unknown key is an error that names the nearest known one. `orrery explain config` prints the whole of a",
        "project's file, defaults included; `orrery explain schema` prints the JSON schema.",
    ]
    top = schema["$defs"]["Spec"]["properties"]
    for section, rules in top.items():
        lines += ["", f"## `[{section}]`"]
        lines += table(schema, section, rules)
    return "\n".join(lines) + "\n"


def table(schema: dict[str, Any], section: str, rules: dict[str, Any]) -> list[str]:
    """Return the lines of one section, and of those in it."""
    struct = referred(schema, rules)
    if struct is None:
        inner = rules.get("additionalProperties")
        struct = referred(schema, inner) if isinstance(inner, dict) else None
        if struct is None:
            return ["", rules.get("description", "A table of names.")]
        section = f"{section}.NAME"
    lines = ["", struct.get("description", "").strip(), "", "| key | default | meaning |", "|---|---|---|"]
    below = []
    limits = [
        f"`{key}`" for key, value in struct.get("properties", {}).items() if value.get("$ref", "").endswith("/Limit")
    ]
    if limits:
        below += ["", f"### `[{section}.METRIC]`", "", f"One key for each metric that is limited: {', '.join(limits)}."]
        below += table(schema, f"{section}.METRIC", {"$ref": "#/$defs/Limit"})
    for key, value in struct.get("properties", {}).items():
        if f"`{key}`" in limits:
            continue
        inner = referred(schema, value)
        if inner is not None:
            below += ["", f"### `[{section}.{key}]`" if "." not in section else f"#### `[{section}.{key}]`"]
            below += table(schema, f"{section}.{key}", value)
            continue
        said = value.get("default")
        default = "*needed*" if key in struct.get("required", []) else f"`{toml(said)}`"
        meaning = value.get("description") or kind(value)
        lines.append(f"| `{key}` | {default} | {meaning} |".replace("||", "|"))
    return lines + below


def referred(schema: dict[str, Any], rules: dict[str, Any]) -> dict[str, Any] | None:
    """Return the struct that a property is, if it is one."""
    target = rules.get("$ref") or next((one["$ref"] for one in rules.get("allOf", []) if "$ref" in one), None)
    found = schema["$defs"].get(target.rsplit("/", 1)[1]) if target else None
    return found if found and "properties" in found else None


def kind(rules: dict[str, Any]) -> str:
    """Return what a value may be, where nothing more is said of it."""
    if "enum" in rules:
        return " or ".join(f"`{value}`" for value in rules["enum"])
    if "anyOf" in rules:
        return " or ".join(str(one.get("type", "value")) for one in rules["anyOf"])
    return str(rules.get("type", "value"))


def toml(value: Any) -> str:
    """Return a default as the file would say it."""
    import json

    return "-" if value is None else json.dumps(value, ensure_ascii=False)


def main(arguments: list[str]) -> int:
    """Write the pages, or check them."""
    old = []
    for name, text in pages().items():
        path = HERE / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            old.append(name)
            if "--check" not in arguments:
                path.write_text(text, encoding="utf-8")
    if old:
        print(f"{'Not current' if '--check' in arguments else 'Written'}: {', '.join(old)}")
    return 1 if old and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
