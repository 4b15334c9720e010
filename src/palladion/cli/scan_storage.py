"""`palladion scan storage`: where do plaintext models, keys and backups lie about?"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion import files
from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    home_is_named,
    identity_option,
    json_option,
    owner_identities,
    passphrase_option,
    print_json,
    print_table,
    progress,
    stages,
    warn,
)
from palladion.errors import FINDING

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation
    from palladion.sweep.known import Identifier
    from palladion.sweep.sweep import Swept

SHOWN_MAX = 200  # findings in a table; --json and --sarif have all


@click.command("storage", epilog="Example: palladion scan storage /srv/models s3://backups/2026 --fail-on high")
@click.argument("places", nargs=-1, required=True, metavar="PLACE...")
@click.option(
    "--fail-on",
    type=click.Choice(["low", "medium", "high", "critical", "never"]),
    default="medium",
    show_default=True,
    help="End with exit code 1 on a finding of at least this severity.",
)
@click.option("--ignore", "patterns", multiple=True, metavar="GLOB", help="Pass over such names or ends of paths.")
@click.option(
    "--ignore-file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    metavar="FILE",
    help="Pass over what the patterns in FILE say, one a line.",
)
@click.option("--no-history", is_flag=True, help="Leave out the history of git repositories.")
@click.option(
    "--identify",
    is_flag=True,
    help="Look for the fingerprints of recipients in what is built like one of our versions; needs the owner's keys.",
)
@click.option(
    "--sarif",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the findings as SARIF 2.1.0 to this new file too.",
)
@click.option("--insecure-http", is_flag=True, help="Allow an unencrypted endpoint of a bucket on another machine.")
@passphrase_option
@identity_option
@json_option
@click.pass_context
def storage(
    ctx: click.Context,
    places: tuple[str, ...],
    fail_on: str,
    patterns: tuple[str, ...],
    ignore_file: Path | None,
    no_history: bool,
    identify: bool,
    sarif: Path | None,
    insecure_http: bool,
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> int:
    """Find plaintext models, keys and backups at each PLACE, where they should not lie.

    A PLACE is a folder or file, also a container image (docker save, OCI), an archive, a git repository with its
    history, a Hugging Face cache or MLflow runs; s3://BUCKET[/PREFIX], gs://… or az://…. Files are known by content.
    In an installation its own versions are named exactly, and the sweep is recorded, in numbers.
    """
    from palladion.sweep.ignore import Ignored, read_patterns
    from palladion.sweep.known import record_sweep
    from palladion.sweep.report import digest_of, document_of, to_sarif
    from palladion.sweep.sweep import Sweep
    from palladion.transit.connection import Limits

    installation = _installation(ctx)
    if identify and installation is None:
        raise click.UsageError("--identify needs an installation: the keys of the marks are there", ctx)
    ignored = Ignored([*patterns, *([] if ignore_file is None else read_patterns(ignore_file))])
    with progress("look") as bar:
        identifier = None
        if identify and installation is not None:
            identifier = _identifier(installation, passphrase_file, identity_file, stages(bar))
        sweep = Sweep(
            _judge(installation, identifier),
            ignored=ignored,
            limits=Limits(insecure_http=insecure_http),
            history=not no_history,
            progress=lambda done, place: bar(0, 0, f"{done:,} files, {place[-60:]}"),
        )
        swept = sweep.run(places)
    document = document_of(swept)
    receipt = None
    if installation is not None:
        receipt = str(record_sweep(installation, swept, report=digest_of(document), actor=actor()))
    if sarif is not None:
        with files.atomic_writer(sarif, replace=False) as stream:
            stream.write(to_sarif(swept))
    if as_json:
        print_json({**document, "receipt": receipt})
    else:
        _print(swept, receipt)
    if identifier is not None and identifier.skipped:
        warn(f"{identifier.skipped} files were not tested for fingerprints: palladion prove copy FILE")
    return FINDING if fail_on != "never" and swept.worst(fail_on) else 0  # type: ignore[arg-type]  # a choice


def _installation(ctx: click.Context) -> "Installation | None":
    """The installation, where there is one: one that is there and broken is an error."""
    from palladion.lifecycle.installation import find_home

    if home_is_named(ctx) or find_home(ctx.find_root().obj) is not None:
        return find_installation(ctx)
    return None


def _judge(installation: "Installation | None", identifier: "Identifier | None") -> Any:
    from palladion.sweep.judge import Judge
    from palladion.sweep.known import judge_of
    from palladion.sweep.rows import Ours

    return Judge(Ours()) if installation is None else judge_of(installation, identify=identifier)


def _identifier(
    installation: "Installation", passphrase_file: Path | None, identity_file: Path | None, told: Any
) -> "Identifier":
    from palladion.sweep.known import Identifier

    owner = installation.open_owner_root(owner_identities(passphrase_file, identity_file))
    return Identifier(installation, owner, actor=actor(), progress=told)


def _print(swept: "Swept", receipt: str | None) -> None:
    shown = swept.findings[:SHOWN_MAX]
    if shown:
        rows = [(item.severity, item.rule, item.place, item.text) for item in shown]
        print_table(("severity", "finding", "where", "what"), rows)
        if len(swept.findings) > len(shown):
            echo(f"… and {len(swept.findings) - len(shown)} more: --json lists all")
        echo()
        for advice in dict.fromkeys(f"{item.rule}: {item.advice}" for item in shown):
            echo(advice)
        echo()
    told = ", ".join(f"{count} {severity}" for severity, count in _counts(swept)) or "no findings"
    sealed = f"; {len(swept.sealed)} sealed, as they should be" if swept.sealed else ""
    passed = f"; {swept.ignored} passed over" if swept.ignored else ""
    echo(f"{swept.files:,} file{'' if swept.files == 1 else 's'}: {told}{sealed}{passed}")
    if receipt is not None:
        echo(f"ledger {receipt}")


def _counts(swept: "Swept") -> list[tuple[str, int]]:
    from palladion.sweep.finding import SEVERITIES

    counts = swept.severities
    return [(severity, counts[severity]) for severity in reversed(SEVERITIES) if severity in counts]
