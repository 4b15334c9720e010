"""`palladion private …`: models that answer encrypted queries, and models that say little of single rows.

Commands are imported when they are used; those of a part that is not there are not shown.
"""

import importlib
import importlib.util

import click

# Where each command lives, in the order in which help shows them.
COMMANDS = {
    "compile": "palladion.cli.private_homomorphic:compile_",
    "bundle": "palladion.cli.private_homomorphic:bundle",
    "key": "palladion.cli.private_homomorphic:key",
    "ask": "palladion.cli.private_homomorphic:ask",
    "plan": "palladion.cli.private_plan:plan",
    "train": "palladion.cli.private_train:train",
    "audit": "palladion.cli.private_train:audit",
}


class PrivateGroup(click.Group):
    """A group whose commands are imported by name when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands that are there, in the order of `COMMANDS`."""
        return [name for name, place in COMMANDS.items() if importlib.util.find_spec(place.partition(":")[0])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name]} is not a command")
        return command


@click.group("private", cls=PrivateGroup)
def private() -> None:
    """Private answers and private training: encrypted queries (docs/homomorphic.md), differential privacy."""
