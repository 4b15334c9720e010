"""`palladion push`: a sealed file to anywhere, verified before it goes."""

from pathlib import Path

import click

from palladion.cli.output import (
    HOST_PUBLISHERS,
    echo,
    finding_as_json,
    json_option,
    print_fields,
    print_json,
    progress,
    size_text,
)
from palladion.cli.pull import described, insecure_option, trusted_publishers


@click.command(epilog="Example: palladion push fraud-for-acme.sealed oci://registry.example.com/models/fraud:v3")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("url")
@HOST_PUBLISHERS
@click.option("--replace", is_flag=True, help="Write over what is at URL, if it is another file.")
@insecure_option
@json_option
@click.pass_context
def push(
    ctx: click.Context,
    file: Path,
    url: str,
    publishers: tuple[bytes, ...],
    replace: bool,
    insecure_http: bool,
    as_json: bool,
) -> None:
    """Send the sealed FILE, and the licence, signature and time stamp that lie beside it, to URL.

    URL is of the kinds that palladion pull knows. FILE has to be whole and signed by a trusted publisher, and is looked
    at from the other side afterwards. If it is there already, nothing is sent. An upload to S3 is resumed.
    """
    from palladion.transit.connection import Limits
    from palladion.transit.push import push as send

    trusted = publishers or trusted_publishers(ctx)
    with finding_as_json(as_json), progress(f"push {file.name}") as bar:
        done = send(file, url, trusted, replace=replace, limits=Limits(insecure_http=insecure_http), progress=bar)
    header = done.info.header
    if as_json:
        print_json(
            {
                "ok": True,
                "url": done.what,
                "sent": done.sent,
                "model": header.model,
                "version": header.version,
                "purpose": header.purpose,
                "publisher": header.publisher,
                "header_digest": done.info.header_digest,
                "bytes": done.info.file_bytes,
                "beside": [f"{file.name}{suffix}" for suffix in done.sidecars],
            }
        )
        return
    echo(f"{'pushed' if done.sent else 'nothing to send:'} {described(done.info)}")
    print_fields(
        [
            ("to" if done.sent else "is at", f"{done.what} ({size_text(done.info.file_bytes)})"),
            ("beside", ", ".join(f"{file.name}{suffix}" for suffix in done.sidecars) or None),
            ("signed by", header.publisher),
        ]
    )
