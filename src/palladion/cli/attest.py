"""`palladion attest …`: evidence of trusted hardware, made on a guest and verified anywhere."""

import secrets
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from palladion import files
from palladion.cli.output import echo, find_installation, json_option, print_fields, print_json, warn
from palladion.clock import SystemClock, timestamp
from palladion.errors import FINDING, AttestationError, NotFoundError

if TYPE_CHECKING:
    from palladion.attest.claims import Claims
    from palladion.attest.evidence import Evidence
    from palladion.attest.requirements import Requirement
    from palladion.attest.roots import Roots

_Result = TypeVar("_Result")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_MOMENT = click.DateTime(["%Y-%m-%dT%H:%MZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"])
_KINDS = click.Choice(["sev-snp", "tdx", "nitro", "nvidia", "tpm"])
_PCRS = (0, 1, 2, 3, 4, 5, 6, 7)  # firmware, its settings, boot loader and secure boot: TCG PC Client profile
# for looking at one's own machine alone: no key is this one's
_NO_KEY = b"\0"


class HexBytes(click.ParamType):  # type: ignore[type-arg]  # generic in newer clicks alone
    """Bytes in hexadecimal."""

    name = "hex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The bytes of a text."""
        if not isinstance(value, str):
            return value
        try:
            return bytes.fromhex(value)
        except ValueError:
            self.fail(f"{value!r} is not hexadecimal", param, ctx)


_nonce = click.option("--nonce", type=HexBytes(), metavar="HEX", help="The 32 bytes that the broker drew for this.")
_public_key = click.option("--public-key", type=HexBytes(), metavar="HEX", help="The key that the answer is sealed to.")
_file_ids = click.option("--file-id", "file_ids", multiple=True, metavar="ID", help="A file that is asked for.")
_certificates = click.option(
    "--certificate", "certificates", type=_FILE, multiple=True, metavar="FILE",
    help="A certificate of the document's key in DER or PEM, leaf first, where it comes without.",
)  # fmt: skip
_collateral = click.option(
    "--collateral", type=_FILE, metavar="FILE", help="What the vendor says of it: Intel's collateral of a TDX quote."
)


@click.group()
def attest() -> None:
    """Evidence of trusted hardware: made on a guest, verified anywhere."""


@attest.command("verify", epilog="Example: palladion attest verify evidence.json --policy cvm")
@click.argument("file", type=_FILE)
@click.option("--kind", type=_KINDS, help="FILE is a bare report, quote or document of this kind.")
@_certificates
@_collateral
@click.option("--policy", "names", multiple=True, metavar="NAME", help="Require what [[attestation]] of NAME says.")
@click.option(
    "--root", "roots", type=_FILE, multiple=True, metavar="FILE",
    help="Certificates in PEM that may vouch for it, instead of the vendor's.",
)  # fmt: skip
@click.option("--at", type=_MOMENT, metavar="TIME", help="When, in UTC (2026-03-01T10:00Z); without it, now.")
@_nonce
@_public_key
@_file_ids
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    file: Path,
    kind: str | None,
    certificates: Sequence[Path],
    collateral: Path | None,
    names: Sequence[str],
    roots: Sequence[Path],
    at: datetime | None,
    nonce: bytes | None,
    public_key: bytes | None,
    file_ids: Sequence[str],
    as_json: bool,
) -> int:
    """Say what the evidence in FILE proves of a machine. Exit code 1 if it does not hold, or is not as required.

    FILE is what `palladion attest quote` wrote, or with --kind a document as the hardware gave it. Only --policy needs
    an installation.
    """
    from palladion.attest.verify import check_binding, check_composition, check_requirements, verify_one

    if (nonce is None) != (public_key is None) or (file_ids and nonce is None):
        raise click.UsageError("--nonce, --public-key and --file-id go together: evidence is bound to all of them")
    if (certificates or collateral) and kind is None:
        raise click.UsageError("--certificate and --collateral go with --kind: other files bring them along")
    if roots and names:
        raise click.UsageError("--root and --policy exclude each other: the policy says which roots count")
    evidence = _read(file, kind, certificates, collateral)
    requirements, trusted = _required(ctx, names, roots, evidence)
    moment = at.replace(tzinfo=UTC) if at else SystemClock().now()
    try:
        if nonce is not None or names:
            check_composition(evidence)
        claims = [verify_one(one, at=moment, roots=trusted) for one in evidence]
        if nonce is not None and public_key is not None:
            _usage(lambda: check_binding(evidence, claims, nonce=nonce, public_key=public_key, file_ids=file_ids))
        if names:
            check_requirements(claims, requirements)
    except AttestationError as error:
        if not as_json:
            raise AttestationError(f"{error.reason}: {error.message}", *error.hints, reason=error.reason) from None
        print_json({"ok": False, "reason": error.reason, "error": error.message, "hints": list(error.hints)})
        return FINDING
    if as_json:
        claimed = [_document(one) for one in claims]
        print_json({"ok": True, "bound": nonce is not None, "required": list(names), "claims": claimed})
        return 0
    for one in claims:
        _show(one)
    if nonce is None:
        warn("who it was made for was not checked (--nonce, --public-key): it may be a copy of another machine's")
    if not names:
        warn("nothing was required of it (--policy): that it is genuine says not what runs there")
    return 0


@attest.command("quote", epilog="Example: palladion attest quote evidence.json --nonce 5f…c1 --public-key 9a…03")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@_nonce
@_public_key
@_file_ids
@_certificates
@_collateral
@click.option("--vmpl", type=click.IntRange(0, 3), help="Privilege level that an SNP report is to name.")
@click.option("--gpu", "gpus", type=click.IntRange(0, 15), multiple=True, metavar="N", help="Also of GPU N, from 0.")
@click.option(
    "--gpu-collateral", type=_FILE, metavar="FILE", help="With --gpu: NVIDIA's reference values of it, as JSON."
)
@click.option("--tpm", is_flag=True, help="Also of the TPM.")
@click.option("--pcr", "pcrs", type=click.IntRange(0, 23), multiple=True, metavar="N", help="With --tpm: PCRs; 0 to 7.")
@click.option("--no-machine", is_flag=True, help="Of the TPM alone: this is no confidential machine.")
@json_option
def quote(
    out: Path,
    nonce: bytes | None,
    public_key: bytes | None,
    file_ids: Sequence[str],
    certificates: Sequence[Path],
    collateral: Path | None,
    vmpl: int | None,
    gpus: Sequence[int],
    gpu_collateral: Path | None,
    tpm: bool,
    pcrs: Sequence[int],
    no_machine: bool,
    as_json: bool,
) -> None:
    """Have the hardware of this machine sign for a nonce and a key, and write the evidence to OUT.

    Run it in the guest, as root. Without --nonce it is made for nobody, and good for looking at what one's own machine
    says (`palladion attest verify OUT`), for example to write its measurements into a policy.
    """
    from palladion.attest.bundle import encode_bundle

    if (nonce is None) != (public_key is None) or (file_ids and nonce is None):
        raise click.UsageError("--nonce, --public-key and --file-id go together: evidence is bound to all of them")
    if (pcrs and not tpm) or (no_machine and (not tpm or gpus)) or (gpu_collateral and not gpus):
        raise click.UsageError(
            "--pcr goes with --tpm, --gpu-collateral with --gpu, and --no-machine with --tpm and without --gpu"
        )
    nonce, public_key = nonce or secrets.token_bytes(32), public_key or _NO_KEY
    bound = _usage(lambda: _device_nonce(nonce, public_key, file_ids))
    devices = [*_gpus(bound, gpus, _collateral_of(gpu_collateral)), *_tpm(bound, (pcrs or _PCRS) if tpm else ())]
    evidence = list(devices)
    if not no_machine:
        chain = _chain(certificates)
        extra = _collateral_of(collateral)
        evidence.insert(0, _machine(nonce, public_key, file_ids, devices, chain, extra, vmpl))
    files.write_atomically(out, encode_bundle(evidence))
    kinds = [one.kind for one in evidence]
    if as_json:
        print_json({"file": str(out), "kinds": kinds, "nonce": nonce.hex()})
    else:
        echo(f"wrote evidence of {', '.join(kinds)} to {out}")


def _device_nonce(nonce: bytes, public_key: bytes, file_ids: Collection[str]) -> bytes:
    from palladion.attest.binding import device_nonce

    return device_nonce(nonce, public_key, file_ids)


def _gpus(bound: bytes, indices: Sequence[int], collateral: bytes) -> "list[Evidence]":
    from palladion.attest.nvidia import device

    return [device.attest(nonce=bound, index=index, collateral=collateral) for index in sorted(set(indices))]


def _tpm(bound: bytes, pcrs: Sequence[int]) -> "list[Evidence]":
    from palladion.attest.tpm import device

    return [device.attest(nonce=bound, pcrs=sorted(set(pcrs)))] if pcrs else []


def _machine(
    nonce: bytes,
    public_key: bytes,
    file_ids: Collection[str],
    devices: "Sequence[Evidence]",
    certificates: Sequence[bytes],
    collateral: bytes,
    vmpl: int | None,
) -> "Evidence":
    """Of whatever this machine is: an enclave has Nitro's device, and nothing else has."""
    from palladion.attest.binding import report_data
    from palladion.attest.guest import machine_evidence
    from palladion.attest.nitro import module

    if module.DEVICE.exists():
        bound = report_data(nonce, public_key, file_ids, devices=devices)
        return module.attest(nonce=nonce, public_key=public_key, user_data=bound)
    return machine_evidence(
        nonce,
        public_key,
        file_ids,
        devices=devices,
        certificates=certificates,
        collateral=collateral,
        privilege=vmpl,
    )


def _read(
    file: Path, kind: str | None, certificates: Sequence[Path], collateral: Path | None
) -> "tuple[Evidence, ...]":
    from palladion.attest.bundle import BUNDLE_BYTES_MAX, decode_bundle
    from palladion.attest.evidence import DOCUMENT_BYTES_MAX, KINDS, Evidence

    if kind is None:
        data = files.read_limited(file, size_max=BUNDLE_BYTES_MAX, what="the evidence")
        return decode_bundle(data)
    data = files.read_limited(file, size_max=DOCUMENT_BYTES_MAX, what="the document")
    named = next(name for name in KINDS if name == kind)
    return (Evidence(named, data, _chain(certificates), _collateral_of(collateral)),)


def _chain(paths: Sequence[Path]) -> tuple[bytes, ...]:
    """Certificates of files, each in DER, or some in PEM."""
    from palladion.attest.evidence import CERTIFICATE_BYTES_MAX, CERTIFICATES_MAX
    from palladion.attest.pem import certificates_of

    found: list[bytes] = []
    for path in paths:
        data = files.read_limited(path, size_max=2 * CERTIFICATES_MAX * CERTIFICATE_BYTES_MAX, what="the certificate")
        if data.startswith(b"-----BEGIN"):
            found += certificates_of(data, what=str(path), most=CERTIFICATES_MAX)
        else:
            found.append(data)
    return tuple(found)


def _collateral_of(path: Path | None) -> bytes:
    from palladion.attest.evidence import COLLATERAL_BYTES_MAX

    return b"" if path is None else files.read_limited(path, size_max=COLLATERAL_BYTES_MAX, what="the collateral")


def _required(
    ctx: click.Context, names: Sequence[str], roots: Sequence[Path], evidence: "Sequence[Evidence]"
) -> "tuple[tuple[Requirement, ...], Roots]":
    """What is required, and the roots to verify with."""
    from palladion.attest.requirements import load, read_roots
    from palladion.attest.roots import vendor_roots

    if not names:
        trusted = vendor_roots()
        for kind in {one.kind for one in evidence} if roots else ():
            trusted = trusted.with_roots(kind, [one for path in roots for one in read_roots(path, kind)])
        return (), trusted
    installation = find_installation(ctx)
    policies = [one for one in installation.policy.attestation if one.name in names]
    missing = sorted(set(names) - {one.name for one in policies})
    if missing:
        known = ", ".join(sorted({one.name for one in installation.policy.attestation})) or "none"
        raise NotFoundError(f"the policy has no [[attestation]] of name {missing[0]}", f"it has: {known}")
    return load(policies, installation.paths.home)


def _usage(call: Callable[[], _Result]) -> _Result:
    """What the caller typed and is of no form that can be bound is a mistake of his."""
    try:
        return call()
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _document(claims: "Claims") -> dict[str, Any]:
    return {
        "kind": claims.kind,
        "measurements": dict(claims.measurements),
        "debug": claims.debug,
        "chip": claims.chip,
        "tcb": dict(claims.tcb),
        "status": claims.status,
        "advisories": list(claims.advisories),
        "features": dict(claims.features),
        "root": claims.root,
        "bound": claims.bound.hex(),
        "public_key": claims.public_key.hex(),
        "user_data": claims.user_data.hex(),
        "signed_at": timestamp(claims.signed_at) if claims.signed_at else None,
        "expires": timestamp(claims.expires) if claims.expires else None,
    }


def _show(claims: "Claims") -> None:
    """One piece of evidence; digests of zeros are of registers that were not used."""
    echo(f"{claims.kind}: genuine")
    used = [(name, value) for name, value in claims.measurements.items() if value.strip("0")]
    on = [name for name, value in claims.features.items() if value is True]
    named = [f"{name} {value}" for name, value in claims.features.items() if not isinstance(value, bool)]
    print_fields(
        [
            *used,
            ("debug", "yes: its host can look into it" if claims.debug else "no"),
            ("firmware", ", ".join(f"{name} {value}" for name, value in claims.tcb.items()) or None),
            ("judged", " ".join((claims.status, *claims.advisories)).strip() or None),
            ("features", ", ".join((*on, *named)) or None),
            ("chip", claims.chip or None),
            ("root", claims.root),
            ("bound to", claims.bound.hex()),
            ("good until", timestamp(claims.expires) if claims.expires else None),
        ]
    )
