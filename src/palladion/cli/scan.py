"""`palladion scan`: is this file safe to open?"""

from pathlib import Path

import click

from palladion.cli.output import find_installation, json_option, print_json
from palladion.errors import FINDING, InstallationError
from palladion.policy import Policy


@click.command(epilog="Example: palladion scan downloaded.onnx")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@click.pass_context
def scan(ctx: click.Context, file: Path, as_json: bool) -> int:
    """Say whether FILE is safe to open, by its content and not by its name. Exit code 1 if it is not.

    What is not known to be mere data is refused. Uses the policy of the installation, or the defaults outside of one.
    """
    from palladion.scan import scan_file

    try:
        limits = find_installation(ctx).policy.scan
    except InstallationError:
        limits = Policy().scan
    verdict = scan_file(file, operator_domains=limits.operator_domains, bytes_max=limits.file_bytes_max).verdict
    if as_json:
        print_json(
            {
                "file": verdict.file,
                "format": verdict.format,
                "accepted": verdict.accepted,
                "findings": [
                    {"rule": item.rule, "where": item.where, "message": item.message} for item in verdict.findings
                ],
            }
        )
    elif verdict.accepted:
        click.echo(f"{file}: {verdict.format}, no findings")
    else:
        click.echo(f"{file}: {verdict.format}, refused")
        for item in verdict.findings:
            click.echo(f"  [{item.rule}] {item.message}")
        for hint in verdict.hints:
            click.echo(f"  {hint}")
    return 0 if verdict.accepted else FINDING
