"""`palladion verify`: are sealed files what their publisher signed and the registry lists?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.output import find_installation, json_option, print_json, progress
from palladion.errors import FINDING, PalladionError

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation
    from palladion.registry import Version


@click.command(epilog="Example: palladion verify fraud@2")
@click.argument("target", required=False)
@click.option(
    "--publisher",
    "publishers",
    multiple=True,
    metavar="KEY",
    help="Accept this publisher's signature (pallp1…) on a file, instead of those that the policy trusts.",
)
@json_option
@click.pass_context
def verify(ctx: click.Context, target: str | None, publishers: tuple[str, ...], as_json: bool) -> int:
    """Check sealed files byte for byte, without opening them. Exit code 1 if one is not what it should be.

    TARGET is a sealed file, a version such as fraud@2, or a model for its promoted version; without it, all versions.
    """
    checked: list[dict[str, object]] = []
    if target is not None and Path(target).is_file():
        _check_file(ctx, Path(target), publishers, checked)
    else:
        _check_versions(find_installation(ctx), target, checked)
    failed = [item for item in checked if not item["ok"]]
    if as_json:
        print_json({"ok": not failed, "checked": checked})
    else:
        for item in checked:
            click.echo(
                f"{'ok     ' if item['ok'] else 'FAILED '} {item['what']}"
                + (f": {item['reason']}" if item["reason"] else "")
            )
        click.echo(f"{len(checked) - len(failed)} of {len(checked)} sealed files are what was signed")
    return FINDING if failed else 0


def _check_file(ctx: click.Context, path: Path, publishers: tuple[str, ...], checked: list[dict[str, object]]) -> None:
    from palladion.seal.reader import verify_file
    from palladion.seal.sign import parse_publisher

    pinned = [parse_publisher(text) for text in publishers] or find_installation(ctx).publishers()
    with progress(f"verify {path.name}") as bar:
        info = verify_file(path, pinned, progress=bar)
    what = f"{path} ({info.header.model} version {info.header.version}, {info.header.purpose})"
    checked.append({"what": what, "ok": True, "reason": ""})


def _check_versions(installation: "Installation", target: str | None, checked: list[dict[str, object]]) -> None:
    from palladion.lifecycle.open import find_version, verify_version

    for version in [find_version(installation, target)] if target else _all_versions(installation):
        for kind in ("served", "original"):
            what = f"{version.model}@{version.number} {kind}"
            try:
                with progress(f"verify {what}") as bar:
                    verify_version(installation, version, kind, progress=bar)
                checked.append({"what": what, "ok": True, "reason": ""})
            except PalladionError as error:
                checked.append({"what": what, "ok": False, "reason": error.message})


def _all_versions(installation: "Installation") -> "list[Version]":
    with installation.open_registry() as registry, registry.read() as records:
        return [version for model in records.models.all() for version in records.versions.all(model.name)]
