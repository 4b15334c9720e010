"""`palladion scan`: are these files safe to open? With `palladion scan storage`: where do models lie about?"""

from collections.abc import Sequence
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion import __version__
from palladion.cli.lazy import LazyGroup
from palladion.cli.output import echo, find_installation, home_is_named, json_option, print_json
from palladion.clock import SystemClock
from palladion.errors import FINDING
from palladion.files import read_limited, storage_errors, write_atomically
from palladion.policy import Policy

if TYPE_CHECKING:
    from palladion.policy.sections import ScanPolicy
    from palladion.scan import Verdict

SUBCOMMANDS = {"storage": "palladion.cli.scan_storage:storage"}
PEM_BYTES_MAX = 256 * 1024
OTHERS = ("picklescan", "fickling")
_NEW = click.Path(dir_okay=False, path_type=Path)
_THERE = click.Path(exists=True, dir_okay=False, path_type=Path)


class ScanGroup(LazyGroup):
    """Takes paths, unless the first word is one of its commands; a file of that name is `./storage`."""

    allow_interspersed_args = True

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the command that the first word names, or else of a scan of paths."""
        if args and (parent is not None) and (command := self.get_command(parent, args[0])) is not None:
            return command.make_context(f"{info_name} {args[0]}", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)


@click.command(
    cls=ScanGroup,
    places=SUBCOMMANDS,
    invoke_without_command=True,
    subcommand_metavar="",
    epilog="Example: palladion scan downloads/ model.pt",
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH…", type=click.Path(exists=True, path_type=Path))
@click.option("--sarif", type=_NEW, metavar="FILE", help="Write the findings here as SARIF 2.1.0, for code hosts.")
@click.option("--bom", type=_NEW, metavar="FILE", help="Write what was scanned here as a CycloneDX 1.6 ML-BOM.")
@click.option(
    "--second-opinion",
    "others",
    type=click.Choice(OTHERS),
    multiple=True,
    help="Ask another scanner too, if it is installed, in a process of its own. May be repeated.",
)
@click.option(
    "--requirements",
    type=_THERE,
    metavar="FILE",
    help="Look up known vulnerabilities of these pinned packages too, with pip-audit, over the network.",
)
@click.option("--oms", type=_THERE, metavar="BUNDLE", help="Check PATH against this OMS bundle first; needs --key.")
@click.option("--key", type=_THERE, metavar="PEM", help="The public key that must have signed the bundle.")
@json_option
@click.pass_context
def scan(
    ctx: click.Context,
    paths: tuple[Path, ...],
    sarif: Path | None,
    bom: Path | None,
    others: tuple[str, ...],
    requirements: Path | None,
    oms: Path | None,
    key: Path | None,
    as_json: bool,
) -> int:
    """Say whether files are safe to open, by their content and not by their names. Exit code 1 if one is not.

    PATH is a file, or a folder with all that is in it; links are not followed. What is not known to be mere data is
    refused; what is only odd is suspicious, which counts unless scan.allow_suspicious says otherwise (docs/scan.md).
    Uses the policy of the installation, or the defaults outside of one. Nothing is ever loaded.

    palladion scan storage looks for models and keys that lie where they should not.
    """
    if (oms is None) != (key is None) or (oms is not None and len(paths) != 1):
        raise click.UsageError("--oms and --key go together, and with one PATH")
    limits = _limits(ctx)
    signed = _signed(paths[0], oms, key) if oms is not None and key is not None else None
    verdicts = [verdict for path in paths for verdict in _verdicts(path, limits)]
    verdicts = [_with_opinions(verdict, others) for verdict in verdicts]
    if requirements is not None:
        verdicts.append(_dependencies(requirements, limits))
    _write(verdicts, sarif, bom)
    accepted = all(verdict.accepted for verdict in verdicts)
    if as_json:
        print_json(_document(verdicts, accepted, signed))
    else:
        _print(verdicts, signed, brief=len(verdicts) > 1)
    return 0 if accepted else FINDING


def _limits(ctx: click.Context) -> "ScanPolicy":
    from palladion.lifecycle.installation import find_home

    # an installation that is there and broken is no reason to scan by other limits than its own
    inside = home_is_named(ctx) or find_home(ctx.find_root().obj) is not None
    return (find_installation(ctx).policy if inside else Policy()).scan


def _verdicts(path: Path, limits: "ScanPolicy") -> "list[Verdict]":
    from palladion.scan import scan_folder, scan_path

    options: dict[str, Any] = {
        "operator_domains": limits.operator_domains,
        "bytes_max": limits.file_bytes_max,
        "allow_suspicious": limits.allow_suspicious,
    }
    return list(scan_folder(path, **options)) if path.is_dir() else [scan_path(path, **options)]


def _with_opinions(verdict: "Verdict", others: Sequence[str]) -> "Verdict":
    from dataclasses import replace

    from palladion.scan.others import second_opinion

    if verdict.format in {"link", "folder"}:
        return verdict
    found = [second_opinion(other, Path(verdict.file)) for other in others]  # type: ignore[arg-type]  # one of OTHERS
    more = tuple(finding for finding in found if finding is not None)
    return replace(verdict, findings=(*verdict.findings, *more)) if more else verdict


def _dependencies(path: Path, limits: "ScanPolicy") -> "Verdict":
    from palladion.scan import Verdict
    from palladion.scan.others import audit_requirements

    return Verdict(str(path), "requirements", tuple(audit_requirements(path)), (), limits.allow_suspicious)


def _signed(path: Path, oms: Path, key: Path) -> int:
    """How many files the bundle signs, if it signs these. Raises TamperError."""
    from palladion.seal.oms import BUNDLE_BYTES_MAX, load_public_key, verify_bundle

    trusted = load_public_key(read_limited(key, size_max=PEM_BYTES_MAX, what="the public key"))
    bundle = read_limited(oms, size_max=BUNDLE_BYTES_MAX, what="the bundle")
    inside = path.is_dir() and oms.resolve().is_relative_to(path.resolve())
    ignore = [oms.resolve().relative_to(path.resolve()).as_posix()] if inside else []
    return len(verify_bundle(bundle, path, trusted, ignore=ignore).resources)


def _write(verdicts: "Sequence[Verdict]", sarif: Path | None, bom: Path | None) -> None:
    from palladion.scan.bom import to_bom
    from palladion.scan.sarif import to_sarif

    if sarif is not None:
        write_atomically(sarif, to_sarif(verdicts, version=__version__), mode=0o644)
    if bom is not None:
        digests = {verdict.file: _digest(Path(verdict.file)) for verdict in verdicts if Path(verdict.file).is_file()}
        document = to_bom(verdicts, digests, version=__version__, now=SystemClock().now())
        write_atomically(bom, document, mode=0o644)


def _digest(path: Path) -> str:
    with storage_errors(path), path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _document(verdicts: "Sequence[Verdict]", accepted: bool, signed: int | None) -> dict[str, Any]:
    files = [
        {
            "file": verdict.file,
            "format": verdict.format,
            "accepted": verdict.accepted,
            "verdict": verdict.word,
            "findings": [
                {"rule": item.rule, "grade": item.grade, "where": item.where, "message": item.message}
                for item in verdict.findings
            ],
        }
        for verdict in verdicts
    ]
    document: dict[str, Any] = {"accepted": accepted, "files": files}
    if signed is not None:
        document["signed_files"] = signed
    # of one file what was said of it before there were more
    return {**files[0], **document} if len(files) == 1 else document


def _print(verdicts: "Sequence[Verdict]", signed: int | None, *, brief: bool) -> None:
    if signed is not None:
        echo(f"the OMS bundle signs what is there: {signed} files")
    for verdict in verdicts:
        if brief and not verdict.findings:
            continue
        echo(f"{verdict.file}: {verdict.format}, {verdict.word}")
        for item in verdict.findings:
            mark = "" if item.grade == "refused" else ", suspicious"
            echo(f"  [{item.rule}{mark}] {item.message}")
        for hint in verdict.hints:
            echo(f"  {hint}")
    if not verdicts:
        echo("there is no file to scan")
    if brief or not verdicts:
        refused = sum(verdict.word == "refused" for verdict in verdicts)
        suspicious = sum(verdict.word == "suspicious" for verdict in verdicts)
        echo(f"{len(verdicts)} files, {refused} refused, {suspicious} suspicious")
