"""Options of files that one gate seals for another: the clients, and what the watch knows of them."""

import click

from palladion.cli.output import PUBLISHER, RECIPIENT

SEALED_TO = click.option(
    "--to",
    "recipients",
    type=RECIPIENT,
    multiple=True,
    required=True,
    metavar="RECIPIENT",
    help="Who may open it: the other gate's key, as palladion key list shows it there. May be repeated.",
)
REPLACE = click.option("--replace", is_flag=True, help="Put it in the place of an earlier FILE.")
PUBLISHED_BY = click.option(
    "--publisher",
    type=PUBLISHER,
    metavar="KEY",
    help="Accept it from this publisher alone (pallp1…), one of those in trust.publishers.",
)
OPENED_WITH = click.option(
    "--identity",
    "identities",
    multiple=True,
    metavar="IDENTITY",
    help="Open it with this identity file or key, besides this gate's and this host's own. May be repeated.",
)
