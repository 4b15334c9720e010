"""Evidence of a Nitro enclave, verified: chain to AWS's root, signature of the module, and its hour.

`document` is the attestation document, which brings its own chain; `certificates` and `collateral` are empty.
"""

from datetime import datetime, timedelta
from hashlib import sha256
from types import MappingProxyType

from cryptography.hazmat.primitives.hashes import SHA384

from palladion.attest.chains import check_validity, refuse, verify_chain
from palladion.attest.claims import Claims
from palladion.attest.evidence import Evidence
from palladion.attest.nitro.document import MEASURED, Document, parse_document
from palladion.attest.roots import Roots
from palladion.attest.signature import Scheme, ecdsa_der, holds

# The module has its own clock, and AWS keeps it and ours within seconds; a document of the future is of another time.
CLOCK_TOLERANCE = timedelta(minutes=5)
# AWS's live three hours and some seconds. No document is older than its certificate.
CERTIFICATE_LIFE_MAX = timedelta(hours=3) + CLOCK_TOLERANCE


def verify(evidence: Evidence, *, at: datetime, roots: Roots) -> Claims:
    """What the document says, once chain and signature hold at that time. The certificate lives for three hours.

    Raises AttestationError. That it was made for this request, and whether it satisfies, is not checked here.
    """
    # 1. The document is one, and nothing stands beside it.
    if evidence.certificates or evidence.collateral:
        refuse("malformed", "evidence of Nitro with certificates or collateral: its document brings them along")
    document = parse_document(evidence.document)
    # 2. The module's certificate leads to AWS's root, now.
    path = verify_chain(document.chain, roots=roots.of("nitro"), at=at)
    leaf = path[0]
    if leaf.authority:
        refuse("chain", "the document is signed by an authority, not by a module")
    if leaf.not_after - leaf.not_before > CERTIFICATE_LIFE_MAX:
        refuse("chain", f"the Nitro document's certificate lives {leaf.not_after - leaf.not_before}, three hours do")
    # 3. Its key signed the document.
    if not holds(Scheme(SHA384), leaf.public_key, ecdsa_der(*document.signature), document.signed):
        refuse("signature", "the signature under the Nitro document does not hold")
    # 4. It was made within the certificate's life, and not after now.
    check_validity(leaf.not_before, leaf.not_after, document.signed_at, what="the certificate of the Nitro document")
    if document.signed_at > at + CLOCK_TOLERANCE:
        refuse("early", f"the Nitro document was made {document.signed_at - at} after now")
    return _claims(document, root=sha256(path[-1].raw).hexdigest(), expires=min(one.not_after for one in path))


def _claims(document: Document, *, root: str, expires: datetime) -> Claims:
    # those beyond are the enclave's own to extend, and worth what its image is worth
    measurements = {
        f"pcr{index}": value.hex() for index, value in document.pcrs.items() if index in MEASURED or any(value)
    }
    return Claims(
        kind="nitro",
        measurements=MappingProxyType(measurements),
        bound=document.nonce,
        debug=document.debug,
        root=root,
        chip=document.module,
        signed_at=document.signed_at,
        expires=expires,
        public_key=document.public_key,
        user_data=document.user_data,
    )
