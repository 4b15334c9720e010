"""`palladion demo`: the whole product in one minute."""

from pathlib import Path

import click


@click.command(epilog="Example: palladion demo --folder ./palladion-demo")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the demo's files go; it must be new or empty. Without it, a new folder among the temporary files.",
)
def demo(folder: Path | None) -> None:
    """Protect a model, serve it, catch a thief and a ring, trace a leaked copy, and catch a forged ledger.

    In under a minute, offline, with a fixed seed, on handwritten digits that scikit-learn brings along; needs the
    `demo` extra. Every number is computed in the run that prints it.
    """
    from palladion.demo.story import tell

    tell(folder)
