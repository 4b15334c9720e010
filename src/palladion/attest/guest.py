"""The guest's side: evidence of the machine it runs on, for a nonce of the broker's and a key of its own."""

from collections.abc import Collection, Sequence

import msgspec

from palladion.attest import tsm
from palladion.attest.binding import report_data
from palladion.attest.evidence import Evidence
from palladion.attest.snp.report import parse_report
from palladion.attest.snp.table import read_table
from palladion.attest.tdx.quote import TrustDomain, parse_quote
from palladion.errors import StorageError, UnsupportedFormatError


def machine_evidence(
    nonce: bytes,
    public_key: bytes,
    file_ids: Collection[str] = (),
    *,
    devices: Sequence[Evidence] = (),
    certificates: Sequence[bytes] = (),
    collateral: bytes = b"",
    privilege: int | None = None,
    configfs: tsm.Configfs | None = None,
) -> Evidence:
    """Evidence of this SNP or TDX guest, bound to all of it; `devices` is the evidence that was collected before.

    `certificates` are those of an SNP guest whose host gives none (leaf first, DER), `collateral` Intel's for a TDX
    guest. Raises NotFoundError outside of such a guest, StorageError or BusyError as `tsm.ask`, AttestationError for
    hardware that signs what is not read here.
    """
    bound = report_data(nonce, public_key, file_ids, devices=devices)
    answer = tsm.ask(bound, privilege=privilege, configfs=configfs)
    if answer.provider == "sev_guest":
        report = parse_report(answer.document)
        chain, lists = read_table(answer.auxiliary, leased=report.key == "vlek")
        said = report.report_data
        crls = msgspec.json.encode({"crls": [one.hex() for one in lists]}) if lists else b""
        evidence = Evidence("sev-snp", answer.document, tuple(certificates) or chain, crls)
    elif answer.provider == "tdx_guest":
        quote = parse_quote(answer.document)
        said = quote.body.report_data if isinstance(quote.body, TrustDomain) else b""
        evidence = Evidence("tdx", answer.document, (), collateral)
    else:
        raise UnsupportedFormatError(
            f"reports by {answer.provider!r} are not read here: sev_guest or tdx_guest was expected",
            found=answer.provider,
        )
    if said != bound:
        raise StorageError("the hardware signed something else than it was asked to")
    return evidence
