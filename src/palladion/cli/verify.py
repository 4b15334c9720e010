"""`palladion verify`: are sealed files what their publisher signed and the registry lists?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.output import (
    PUBLISHER,
    echo,
    find_host,
    find_installation,
    finding_as_json,
    home_is_named,
    json_option,
    print_json,
    progress,
)
from palladion.clock import timestamp
from palladion.errors import FINDING, InstallationError, PalladionError
from palladion.files import read_limited

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation
    from palladion.registry import Version


PEM_BYTES_MAX = 256 * 1024  # a chain of certificates


@click.command(epilog="Example: palladion verify fraud@2")
@click.argument("target", required=False)
@click.option(
    "--publisher",
    "publishers",
    type=PUBLISHER,
    multiple=True,
    metavar="KEY",
    help="Accept this publisher's signature (pallp1…), instead of those that the policy, or else this host, trusts. "
    "May be repeated.",
)
@click.option(
    "--oms",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="BUNDLE",
    help="Check TARGET, any file or folder, against this OpenSSF Model Signing bundle instead; needs --key.",
)
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PEM",
    help="The public key that must have signed the bundle.",
)
@click.option("--stamp", is_flag=True, help="Check the time stamp beside the sealed file as well; needs --roots.")
@click.option(
    "--roots",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PEM",
    help="Certificates of the time-stamping authorities you trust.",
)
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    target: str | None,
    publishers: tuple[bytes, ...],
    oms: Path | None,
    key: Path | None,
    stamp: bool,
    roots: Path | None,
    as_json: bool,
) -> int:
    """Check sealed files byte for byte, without opening them. Exit code 1 if one is not what it should be.

    Of a version's files also that they say of themselves what the registry lists.

    TARGET is a sealed file, a version such as fraud@2, or a model for its promoted version; without it, all versions.
    A file can be checked on any host, without an installation.
    """
    checked: list[dict[str, object]] = []
    if oms is not None:
        if key is None or target is None or stamp:
            raise click.UsageError("--oms needs a TARGET and --key, and goes without --stamp")
        with finding_as_json(as_json):
            _check_bundle(Path(target), oms, key, checked)
    elif stamp and (roots is None or target is None or not Path(target).is_file()):
        raise click.UsageError("--stamp needs a sealed file and --roots")
    elif target is not None and Path(target).is_file():
        with finding_as_json(as_json):
            trusted = publishers or _trusted(ctx)
            _check_file(Path(target), trusted, checked)
            if stamp and roots is not None:
                _check_stamp(Path(target), trusted, roots, checked)
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


def _trusted(ctx: click.Context) -> Sequence[bytes]:
    try:
        return find_installation(ctx).publishers()
    except InstallationError:
        if home_is_named(ctx):
            raise
        return find_host().publishers()


def _check_file(path: Path, publishers: Sequence[bytes], checked: list[dict[str, object]]) -> None:
    from palladion.seal.reader import verify_file

    with progress(f"verify {path.name}") as bar:
        info = verify_file(path, publishers, progress=bar)
    what = f"{path} ({info.header.model} version {info.header.version}, {info.header.purpose})"
    checked.append({"what": what, "ok": True, "reason": ""})


def _check_bundle(path: Path, oms: Path, key: Path, checked: list[dict[str, object]]) -> None:
    from palladion.seal.oms import BUNDLE_BYTES_MAX, load_public_key, verify_bundle

    trusted = load_public_key(read_limited(key, size_max=PEM_BYTES_MAX, what="the public key"))
    bundle = read_limited(oms, size_max=BUNDLE_BYTES_MAX, what="the bundle")
    inside = path.is_dir() and oms.resolve().is_relative_to(path.resolve())
    ignore = [oms.resolve().relative_to(path.resolve()).as_posix()] if inside else []
    said = verify_bundle(bundle, path, trusted, ignore=ignore)
    checked.append({"what": f"{path} ({len(said.resources)} files of an OMS bundle)", "ok": True, "reason": ""})


def _check_stamp(path: Path, publishers: Sequence[bytes], roots: Path, checked: list[dict[str, object]]) -> None:
    from palladion.seal.oms import load_certificates
    from palladion.seal.timestamp import verify_stamp

    trusted = load_certificates(read_limited(roots, size_max=PEM_BYTES_MAX, what="the file of certificates"))
    made = verify_stamp(path, publishers, trusted)
    what = f"{path}, its signature stamped at {timestamp(made.time)} by {made.authority}"
    checked.append({"what": what, "ok": True, "reason": ""})


def _check_versions(
    installation: "Installation", target: str | None, publishers: Sequence[bytes], checked: list[dict[str, object]]
) -> None:
    from palladion.lifecycle.open import find_version, sealed_kinds, verify_version

    for version in [find_version(installation, target)] if target else _all_versions(installation):
        for kind in sealed_kinds(version):
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
