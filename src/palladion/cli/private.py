"""`palladion private …`: models that answer encrypted queries, and models that say little of single rows."""

import click

from palladion.cli.lazy import LazyGroup

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


@click.group("private", cls=LazyGroup, places=COMMANDS)
def private() -> None:
    """Private answers and private training: encrypted queries (docs/homomorphic.md), differential privacy."""
