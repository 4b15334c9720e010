"""`palladion sign`: signatures that others verify, an OpenSSF Model Signing bundle and an authority's time stamp."""

from pathlib import Path

import click

from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    json_option,
    owner_identities,
    passphrase_option,
    print_fields,
    print_json,
)
from palladion.clock import timestamp
from palladion.files import read_limited, write_atomically

PEM_BYTES_MAX = 256 * 1024  # a chain of certificates
_NEW = click.Path(dir_okay=False, path_type=Path)
_THERE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(epilog="Example: palladion sign fraud.sealed --oms fraud.sealed.sig --public-key oms.pem")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--oms", type=_NEW, metavar="FILE", help="Write an OpenSSF Model Signing bundle (OMS v1.0) here.")
@click.option("--key", type=_THERE, metavar="PEM", help="Sign the bundle with this EC key instead of the owner's.")
@click.option("--public-key", type=_NEW, metavar="PEM", help="Write the key that verifies the bundle here.")
@click.option("--stamp", "authority", metavar="URL", help="Have the sealed file's signature stamped (RFC 3161).")
@click.option("--roots", type=_THERE, metavar="PEM", help="Certificates of the time-stamping authorities you trust.")
@passphrase_option
@json_option
@click.pass_context
def sign(
    ctx: click.Context,
    path: Path,
    oms: Path | None,
    key: Path | None,
    public_key: Path | None,
    authority: str | None,
    roots: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Sign PATH, a file or a folder, for programs without Palladion, or have a sealed file's signature stamped.

    A sealed file needs neither to be opened: its publisher's signature is in it. The bundle is verified by the
    model_signing tool and by palladion verify --oms, the stamp by openssl ts and by palladion verify --stamp.
    """
    if (oms is None) == (authority is None):
        raise click.UsageError("name one of the two: --oms FILE or --stamp URL")
    if oms is not None:
        _bundle(ctx, path, oms, key, public_key, passphrase_file, as_json=as_json)
        return
    if roots is None:
        raise click.UsageError("--stamp needs --roots: the reply is verified before it is kept")
    from palladion.lifecycle.release import stamp
    from palladion.seal.oms import load_certificates
    from palladion.seal.timestamp import http_sender, stamp_path

    trusted = load_certificates(read_limited(roots, size_max=PEM_BYTES_MAX, what="the file of certificates"))
    made, receipt = stamp(find_installation(ctx), path, trusted, http_sender(str(authority)), actor=actor())
    if as_json:
        print_json({"file": str(stamp_path(path)), "time": timestamp(made.time), "authority": made.authority})
    else:
        echo(f"the signature of {path} existed at {timestamp(made.time)}")
        fields = [("stamp", stamp_path(path)), ("authority", made.authority), ("ledger", f"entry {receipt.index}")]
        print_fields(fields)


def _bundle(
    ctx: click.Context,
    path: Path,
    oms: Path,
    key: Path | None,
    public_key: Path | None,
    passphrase_file: Path | None,
    *,
    as_json: bool,
) -> None:
    from palladion.lifecycle import release as life
    from palladion.seal.oms import load_private_key, public_pem

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    own = load_private_key(read_limited(key, size_max=PEM_BYTES_MAX, what="the signing key")) if key else None
    made = life.sign(installation, owner, path, oms, actor=actor(), key=own)
    if public_key is not None:
        write_atomically(public_key, public_pem(made.key), mode=0o644)
    if as_json:
        print_json({"bundle": str(oms), "public_key": str(public_key) if public_key else None})
    else:
        echo(f"signed {path}")
        print_fields([("bundle", oms), ("public key", public_key), ("ledger", f"entry {made.receipt.index}")])
