"""Writes the reference pages that the code itself knows: commands, policy, errors, keys, ledger records.

`python -m tools.reference` rewrites them, `--check` says which are stale. Each page is hand-written text with generated
blocks between `<!-- begin NAME -->` and `<!-- end NAME -->`.
"""

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path

import click

from palladion import errors, policy
from palladion.cli.main import palladion
from palladion.ledger.record import KINDS
from palladion.purposes import PURPOSES

ROOT = Path(__file__).resolve().parents[1]


def commands() -> str:
    """Every command with its help, in the order of `palladion --help`."""
    parts: list[str] = []

    def add(command: click.Command, context: click.Context, path: str) -> None:
        parts.append(f"## {path}\n\n```text\n{command.get_help(context).strip()}\n```\n")
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                if child is not None:
                    below = click.Context(child, info_name=name, parent=context, terminal_width=100)
                    add(child, below, f"{path} {name}")

    # as `main` makes it, but for the width, which must not be that of whoever runs this
    settings = {**palladion.context_settings, "terminal_width": 100}
    add(palladion, click.Context(palladion, info_name="palladion", **settings), "palladion")
    return "\n".join(parts)


def settings() -> str:
    """The template that `palladion init` writes."""
    return f"```toml\n{policy.template()}```\n"


def error_kinds() -> str:
    """Every kind of error with its exit code."""
    kinds: list[type[errors.PalladionError]] = [
        item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, errors.PalladionError)
    ]
    rows = [f"| `{kind.__name__}` | {kind.exit_code} | {_summary(kind)} |\n" for kind in kinds]
    return "| error | exit code | when |\n|---|---|---|\n" + "".join(rows)


def purposes() -> str:
    """Every key with what its loss and its theft would cost."""
    rows = [f"| {p.root} | {p.name} | {p.source} | {p.use} | {p.loss} | {p.theft} |\n" for p in PURPOSES]
    return "| root | key | kind | for | if it is lost | if it is stolen |\n|---|---|---|---|---|---|\n" + "".join(rows)


def records() -> str:
    """Every kind of ledger record."""
    rows = [f"| `{kind}` | {meaning} |\n" for kind, meaning in KINDS.items()]
    return "| kind | what happened |\n|---|---|\n" + "".join(rows)


BLOCKS: dict[str, tuple[str, Callable[[], str]]] = {
    "commands": ("docs/commands.md", commands),
    "settings": ("docs/policy.md", settings),
    "errors": ("docs/errors.md", error_kinds),
    "keys": ("docs/keys.md", purposes),
    "records": ("docs/ledger.md", records),
}


def rendered(name: str) -> str:
    """The whole page of block `name`, with the block as the code has it now."""
    page, make = BLOCKS[name]
    text = (ROOT / page).read_text(encoding="utf-8")
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{page} has no block {name!r}")
    return pattern.sub(lambda _: f"{begin}\n{make().rstrip()}\n{end}", text)


def stale() -> list[str]:
    """The pages that do not say what the code says."""
    return [page for name, (page, _) in BLOCKS.items() if rendered(name) != (ROOT / page).read_text(encoding="utf-8")]


def _summary(item: type) -> str:
    return " ".join((inspect.getdoc(item) or "").split("\n\n")[0].split())


def main() -> int:
    """Rewrite the pages, or with `--check` only compare. Returns the exit code."""
    if "--check" in sys.argv[1:]:
        for page in stale():
            print(f"{page} is stale: run python -m tools.reference")
        return 1 if stale() else 0
    for name, (page, _) in BLOCKS.items():
        (ROOT / page).write_text(rendered(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
