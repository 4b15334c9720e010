"""The docs say what the code does: reference pages, commands, settings, errors, and every example in the README."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from palladion import errors, policy
from palladion.cli.main import COMMANDS, palladion
from palladion.ledger.record import KINDS

pytestmark = pytest.mark.slow  # `dev.py check` runs these

ROOT = Path(__file__).resolve().parents[1]
GROUPS_OF_ONE = {"demo"}  # takes half a minute; tests/cli/test_demo.py runs it


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from _commands(found, f"{name} {child}")


ALL = dict(_commands(palladion, "palladion"))


def _read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def test_the_reference_pages_are_what_the_code_says() -> None:
    # in a process of its own: whatever other tests did to the commands of this one does not stand in the pages
    done = subprocess.run(
        [sys.executable, "-m", "tools.reference", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_every_command_and_flag_is_documented() -> None:
    page = _read("docs/commands.md")
    for name, command in ALL.items():
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert all(flag in section for flag in parameter.opts), (name, parameter.name)


def test_every_command_explains_itself_with_an_example() -> None:
    for name, command in ALL.items():
        assert command.help, name
        if not isinstance(command, click.Group):
            assert command.epilog, name
            assert command.epilog.startswith("Example: palladion"), name
            assert all(option.help for option in command.params if isinstance(option, click.Option)), name


def test_every_command_that_reports_can_print_json() -> None:
    # a note, JSON anyway, a show, one that speaks as long as it runs, and one whose output is another program's
    notes = ("ledger checkpoint", "ledger show", "demo", "serve", "exec")
    others = ("envoy-config", "haproxy-config", "policy openapi", "key-broker serve")
    silent = {f"palladion {name}" for name in (*notes, *others)}
    for name, command in ALL.items():
        if not isinstance(command, click.Group) and name not in silent:
            assert any("--json" in parameter.opts for parameter in command.params), name


def test_every_setting_is_in_the_policy_page() -> None:
    page = _read("docs/policy.md")
    for setting in policy.settings():
        assert f"{setting.key} = " in page, setting.name


def test_every_error_and_every_record_is_documented() -> None:
    kinds = [name for name in vars(errors) if name.endswith("Error")]
    assert [name for name in kinds if f"`{name}`" not in _read("docs/errors.md")] == []
    assert [kind for kind in KINDS if f"`{kind}`" not in _read("docs/ledger.md")] == []


def test_commands_that_texts_mention_exist() -> None:
    pages = [path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if path.name != "ARCHITECTURE.md"]
    sources = list((ROOT / "src").rglob("*.py"))
    unknown = set()
    for path in [*pages, *sources]:
        for words in re.findall(
            r"(?:`|\"|^\$ )palladion ((?:[a-z]+(?:-[a-z]+)* ?){1,2})", path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            first, _, second = words.strip().partition(" ")
            known = first in COMMANDS
            group = ALL.get(f"palladion {first}")
            # a group that works without a command takes names of files there
            if known and second and isinstance(group, click.Group) and not group.invoke_without_command:
                known = f"palladion {first} {second}" in ALL
            if not known:
                unknown.add(f"{path.name}: palladion {words.strip()}")
    assert unknown == set()


def test_every_command_is_tried_in_a_session_or_the_readme() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "cli" / "sessions").glob("*.txt")]
    typed = "\n".join([*texts, _read("README.md")])
    for name, command in ALL.items():
        if not isinstance(command, click.Group) and name.split()[-1] not in GROUPS_OF_ONE:
            verb = name.removeprefix("palladion ")
            assert re.search(rf"^\$ palladion (--home \S+ )?{verb}\b", typed, re.MULTILINE), name
