"""`palladion prove …`: is a model or a text ours, whose copy is it, and who was it made from?"""

from typing import Any

import click

from palladion.cli.prove.api import capture
from palladion.cli.prove.copy import copy
from palladion.cli.prove.dispute import check, disclose, dispute
from palladion.cli.prove.mine import mine
from palladion.cli.prove.student import student
from palladion.cli.prove.text import text
from palladion.errors import FINDING, INCONCLUSIVE, PalladionError


class ProveGroup(click.Group):
    """In it, exit code 1 says that something of ours was found, and never that a file is broken."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what cannot be read is inconclusive."""
        try:
            return super().invoke(ctx)
        except PalladionError as error:
            if error.exit_code == FINDING:
                error.exit_code = INCONCLUSIVE  # type: ignore[misc]  # of this error, not of its class
            raise


@click.group(cls=ProveGroup)
def prove() -> None:
    """Is a model or a text ours, and whose copy is it? Tested with this installation's keys, and recorded.

    Exit codes: 0 no finding, 1 something of ours was found, 3 nothing could be compared, or a file cannot be read.
    """


for command in (mine, copy, student, text, dispute, disclose, check, capture):
    prove.add_command(command)
