"""Groups of commands that are imported when they are asked for."""

import click
import pytest
from click.testing import CliRunner

from palladion.cli.lazy import LazyGroup

PLACES = {"doctor": "palladion.cli.doctor:doctor", "wrong": "palladion.cli.doctor:FINDING"}


def test_commands_come_from_where_they_live() -> None:
    group = LazyGroup("these", places=PLACES)
    context = click.Context(group)
    assert group.list_commands(context) == ["doctor", "wrong"]
    command = group.get_command(context, "doctor")
    assert command is not None
    assert command.name == "doctor"
    assert group.get_command(context, "else") is None
    assert CliRunner().invoke(group, ["else"]).exit_code == 2


def test_what_is_no_command_is_our_mistake() -> None:
    with pytest.raises(TypeError, match=r"palladion\.cli\.doctor:FINDING is not a command"):
        LazyGroup("these", places=PLACES).get_command(click.Context(LazyGroup("these", places=PLACES)), "wrong")
