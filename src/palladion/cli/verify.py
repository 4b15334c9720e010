"""`palladion verify`: are sealed files what their publisher signed and the registry lists?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.output import (
    PUBLISHER,
    echo,
    find_installation,
    finding_as_json,
    json_option,
    print_json,
    progress,
)
from palladion.errors import FINDING, PalladionError

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation
    from palladion.registry import Version


@click.command(epilog="Example: palladion verify fraud@2")
@click.argument("target", required=False)
@click.option(
    "--publisher",
    "publishers",
    type=PUBLISHER,
    multiple=True,
    metavar="KEY",
    help="Accept this publisher's signature (pallp1…), instead of those that the policy trusts. May be repeated.",
)
@json_option
@click.pass_context
def verify(ctx: click.Context, target: str | None, publishers: tuple[bytes, ...], as_json: bool) -> int:
    """Check sealed files byte for byte, without opening them. Exit code 1 if one is not what it should be.

    Of a version's files also that they say of themselves what the registry lists.

    TARGET is a sealed file, a version such as fraud@2, or a model for its promoted version; without it, all versions.
    """
    checked: list[dict[str, object]] = []
    if target is not None and Path(target).is_file():
        with finding_as_json(as_json):
            _check_file(Path(target), publishers or find_installation(ctx).publishers(), checked)
    else:
        installation = find_installation(ctx)
        _check_versions(installation, target, publishers or installation.publishers(), checked)
    failed = [item for item in checked if not item["ok"]]
    if as_json:
        print_json({"ok": not failed, "checked": checked})
    else:
        for item in checked:
            echo(
                f"{'ok     ' if item['ok'] else 'FAILED '} {item['what']}"
                + (f": {item['reason']}" if item["reason"] else "")
            )
        echo(f"{len(checked) - len(failed)} of {len(checked)} sealed files are what was signed")
    return FINDING if failed else 0


def _check_file(path: Path, publishers: Sequence[bytes], checked: list[dict[str, object]]) -> None:
    from palladion.seal.reader import verify_file

    with progress(f"verify {path.name}") as bar:
        info = verify_file(path, publishers, progress=bar)
    what = f"{path} ({info.header.model} version {info.header.version}, {info.header.purpose})"
    checked.append({"what": what, "ok": True, "reason": ""})


def _check_versions(
    installation: "Installation", target: str | None, publishers: Sequence[bytes], checked: list[dict[str, object]]
) -> None:
    from palladion.lifecycle.open import find_version, verify_version

    for version in [find_version(installation, target)] if target else _all_versions(installation):
        for kind in ("served", "original"):
            what = f"{version.model}@{version.number} {kind}"
            try:
                with progress(f"verify {what}") as bar:
                    verify_version(installation, version, kind, publishers=publishers, progress=bar)
                checked.append({"what": what, "ok": True, "reason": ""})
            except PalladionError as error:
                checked.append({"what": what, "ok": False, "reason": error.message})


def _all_versions(installation: "Installation") -> "list[Version]":
    with installation.open_registry() as registry, registry.read() as records:
        return [version for model in records.models.all() for version in records.versions.all(model.name)]
