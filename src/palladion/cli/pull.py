"""`palladion pull`: a sealed file from anywhere, verified while it arrives."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.output import (
    HOST_PUBLISHERS,
    echo,
    find_host,
    find_installation,
    finding_as_json,
    json_option,
    print_fields,
    print_json,
    progress,
    size_text,
    warn,
)
from palladion.errors import ConflictError, InstallationError, KeysError

if TYPE_CHECKING:
    from palladion.seal.structure import SealedInfo

insecure_option = click.option(
    "--insecure-http",
    is_flag=True,
    help="Speak unencrypted http with other machines too: the file stays what was signed, but others see who fetches "
    "which model. No password is sent that way.",
)


@click.command(epilog="Example: palladion pull s3://models/fraud-3.sealed")
@click.argument("url")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@HOST_PUBLISHERS
@click.option("--replace", is_flag=True, help="Write over FILE, and over what lies beside it, once all is verified.")
@insecure_option
@json_option
@click.pass_context
def pull(
    ctx: click.Context,
    url: str,
    file: Path | None,
    publishers: tuple[bytes, ...],
    replace: bool,
    insecure_http: bool,
    as_json: bool,
) -> None:
    """Fetch the sealed file at URL to FILE, with the licence, signature and time stamp that lie beside it.

    URL is a path, file:, https://, s3://, gs://, az://, abfs:// or oci://REGISTRY/NAME:TAG. Needs no key: the
    publisher's signature is checked before the body is asked for, and each mebibyte against it as it arrives. What an
    interruption leaves is used by the next run. Without FILE it is called what URL ends in.
    """
    from palladion.transit.connection import Limits
    from palladion.transit.places import file_name
    from palladion.transit.pull import pull as fetch

    target = file or Path(file_name(url))
    trusted = publishers or trusted_publishers(ctx)
    with finding_as_json(as_json), progress(f"pull {target.name}") as bar:
        done = fetch(url, target, trusted, replace=replace, limits=Limits(insecure_http=insecure_http), progress=bar)
    header = done.info.header
    if as_json:
        print_json(
            {
                "ok": True,
                "file": str(done.path),
                "model": header.model,
                "version": header.version,
                "purpose": header.purpose,
                "publisher": header.publisher,
                "header_digest": done.info.header_digest,
                "bytes": done.info.file_bytes,
                "fetched_bytes": done.fetched_bytes,
                "kept_bytes": done.kept_bytes,
                "beside": [str(path) for path in done.sidecars],
            }
        )
    else:
        echo(f"pulled {described(done.info)}")
        kept = f", {size_text(done.kept_bytes)} of it left by an earlier run" if done.kept_bytes else ""
        print_fields(
            [
                ("file", f"{done.path} ({size_text(done.info.file_bytes)}{kept})"),
                ("beside", ", ".join(path.name for path in done.sidecars) or None),
                ("signed by", header.publisher),
            ]
        )
    try:
        find_host().seen().check(done.info)
    except ConflictError as error:
        warn(error.message)


def trusted_publishers(ctx: click.Context) -> Sequence[bytes]:
    """The publishers that this host or its installation trusts. Raises KeysError if there are none."""
    host = find_host()
    keys = [key for key, _ in host.trusted()]
    try:
        keys += [key for key in find_installation(ctx).publishers() if key not in keys]
    except (InstallationError, KeysError):
        # a host needs no installation, and says best itself what it lacks
        return keys or host.publishers()
    return keys


def described(info: "SealedInfo") -> str:
    """A sealed file in words."""
    header = info.header
    name = f"{header.model} version {header.version}, {header.purpose}" if header.model else header.purpose
    return f"{name} for {header.recipient}" if header.recipient else name
