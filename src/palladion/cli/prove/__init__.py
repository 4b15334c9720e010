"""`palladion prove …`: is a model or a text ours, whose copy is it, and who was it made from?"""

import click

from palladion.cli.prove.copy import copy
from palladion.cli.prove.dispute import check, disclose, dispute
from palladion.cli.prove.mine import mine
from palladion.cli.prove.student import student
from palladion.cli.prove.text import text


@click.group()
def prove() -> None:
    """Is a model or a text ours, and whose copy is it? Tested with this installation's keys, and recorded.

    Exit codes: 0 no finding, 1 something of ours was found, 3 nothing could be compared.
    """


for command in (mine, copy, student, text, dispute, disclose, check):
    prove.add_command(command)
