"""The pinned roots: exactly these, and nothing is a root that is not named as one."""

from hashlib import sha256

from palladion.attest.certificate import parse_certificate
from palladion.attest.chains import verify_chain
from palladion.attest.roots import Roots, vendor_roots
from tests.attest.synthetic import NOW

# As AMD and Intel publish them; see pinned/README.md. A change here is a change of whom every installation trusts.
AMD = {
    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd": "ARK-Milan",
    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1": "ARK-Genoa",
    "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a": "ARK-Turin",
}
AWS = {"641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b": "aws.nitro-enclaves"}
NVIDIA = {"102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48": "NVIDIA Device Identity CA"}
INTEL = {"44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3": "Intel SGX Root CA"}


def _named(certificates: tuple[bytes, ...]) -> dict[str, str]:
    return {sha256(data).hexdigest(): parse_certificate(data).name for data in certificates}


def test_the_roots_are_the_vendors() -> None:
    roots = vendor_roots()

    assert _named(roots.of("sev-snp")) == AMD
    assert _named(roots.of("tdx")) == INTEL
    assert _named(roots.of("nitro")) == AWS
    assert _named(roots.of("nvidia")) == NVIDIA
    assert roots.of("tpm") == ()


def test_what_fills_gaps_is_vouched_for_by_a_root() -> None:
    roots = vendor_roots()
    names = []
    for data in roots.between("sev-snp"):
        path = verify_chain([data], roots=roots.of("sev-snp"), at=NOW)
        names.append([one.name for one in path])

    assert sorted(names) == [
        ["SEV-Genoa", "ARK-Genoa"],
        ["SEV-Milan", "ARK-Milan"],
        ["SEV-Turin", "ARK-Turin"],
        ["SEV-VLEK-Milan", "ARK-Milan"],
    ]


def test_roots_are_replaced_for_one_kind_alone() -> None:
    other = vendor_roots().with_roots("tdx", [b"mine"])

    assert other.of("tdx") == (b"mine",)
    assert other.of("sev-snp") == vendor_roots().of("sev-snp")
    assert other.between("sev-snp") == vendor_roots().between("sev-snp")
    assert Roots({}).of("sev-snp") == ()
