"""`palladion scan`: is this file safe to open?"""

from pathlib import Path

import click

from palladion.cli.output import echo, find_installation, home_is_named, json_option, print_json
from palladion.errors import FINDING
from palladion.policy import Policy


@click.command(epilog="Example: palladion scan downloaded.onnx")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@click.pass_context
def scan(ctx: click.Context, file: Path, as_json: bool) -> int:
    """Say whether FILE is safe to open, by its content and not by its name. Exit code 1 if it is not.

    What is not known to be mere data is refused. Uses the policy of the installation, or the defaults outside of one.
    """
    from palladion.lifecycle.installation import find_home
    from palladion.scan import scan_file

    # an installation that is there and broken is no reason to scan by other limits than its own
    inside = home_is_named(ctx) or find_home(ctx.find_root().obj) is not None
    limits = (find_installation(ctx).policy if inside else Policy()).scan
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
        echo(f"{file}: {verdict.format}, no findings")
    else:
        echo(f"{file}: {verdict.format}, refused")
        for item in verdict.findings:
            echo(f"  [{item.rule}] {item.message}")
        for hint in verdict.hints:
            echo(f"  {hint}")
    return 0 if verdict.accepted else FINDING
