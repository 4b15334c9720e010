"""A broker with a client, a delivered file, and a machine of our own making, for the tests of this room."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from palladion.access.certificates import Certificate
from palladion.attest.binding import report_data
from palladion.attest.bundle import encode_bundle
from palladion.broker.broker import Broker
from palladion.broker.opening import open_broker
from palladion.clock import ManualClock
from palladion.host.broker_messages import (
    Challenge,
    FileFront,
    Released,
    ReleaseRequest,
    Renewed,
    RenewRequest,
    SentWrap,
    answer_context,
    encode,
)
from palladion.keys import Root, Wrap
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.installation import Installation
from palladion.registry import Client
from palladion.seal.header import new_header
from palladion.seal.recipients import FileIdentity, HybridIdentity, write_identity
from palladion.seal.sign import publisher_id
from palladion.seal.source import open_source
from palladion.seal.structure import Structure, read_structure
from palladion.seal.writer import seal_files
from tests.attest.synthetic import MEASUREMENT, SnpReport, snp_lab, to_pem
from tests.lifecycle.installations import ACTOR, make

LAB = FileIdentity(b"\x33" * 32)
CERTIFICATE = Certificate("ab" * 32)
OTHER = Certificate("cd" * 32)
CEDAR = """
permit (principal == Client::"acme/web", action == Action::"release", resource in Model::"fraud")
when { context.purpose == "exec" && resource.recipient == "lab" };
"""
POLICY = """
[broker]
identities = ["lab.identity"]
policies = "broker.cedar"
lease_minutes = 30
per_minute = 6000

[[broker.release]]
model = "fraud"
{rule}

[[attestation]]
name = "cvm"
tee = "sev-snp"
measurements = ["measurement={measurement}"]
minimum_tcb = ["snp=23", "microcode=213"]
roots = ["lab.pem"]
"""
ATTESTED = 'attestation = ["cvm"]'


def without_table(text: str, name: str) -> str:
    """A policy without a table."""
    lines, inside = [], False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line.strip() == f"[{name}]"
        if not inside:
            lines.append(line)
    return "\n".join(lines) + "\n"


@dataclass
class Seconds:
    """A clock of seconds that tests move."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Setting:
    """The installation of a broker, and what a client has."""

    installation: Installation
    owner: Root
    clock: ManualClock
    client: Client
    file: Path
    seconds: Seconds = field(default_factory=Seconds)

    def broker(self) -> Broker:
        return open_broker(self.installation, monotonic=self.seconds)

    def settle(self, rule: str = "", *, measurement: str = MEASUREMENT.hex()) -> "Setting":
        """The same with another rule."""
        path = self.installation.paths.policy
        text = path.read_text().partition("\n[broker]\nidentities")[0]
        text = without_table(text, "broker") + POLICY.format(rule=rule, measurement=measurement)
        path.write_text(text)
        return self.again()

    def again(self) -> "Setting":
        """The same after its policy was changed."""
        return replace(self, installation=Installation.find(self.installation.paths.home, self.clock, exact=True))

    def structure(self, path: Path | None = None) -> Structure:
        source = open_source(path or self.file)
        try:
            return read_structure(source)
        finally:
            source.close()

    def seal(self, name: str = "other.sealed", *, to: FileIdentity = LAB, **fields: Any) -> Path:
        """Another file of the owner's."""
        path = self.file.with_name(name)
        path.unlink(missing_ok=True)
        signer = self.owner.signer("publisher")
        values = {"kind": "opaque", "purpose": "delivery", "model": "fraud", "version": 1, "recipient": "lab", **fields}
        header = new_header(publisher=publisher_id(signer.public_key), created=self.clock.now(), **values)
        seal_files((("model.bin", b"weights"),), header, [to.recipient], signer, path)
        return path

    def records(self, *kinds: str) -> list[Record]:
        """The ledger's records of these kinds, oldest first."""
        decoded = [decode_record(data, what="it") for _, data in self.installation.read_ledger().entries()]
        return [record for record in decoded if record.kind in kinds]

    def reasons(self) -> list[object]:
        return [record.details["reason"] for record in self.records("broker.refused")]


@dataclass
class Asking:
    """A client's side, written by hand so that tests can send what no client would."""

    setting: Setting
    broker: Broker
    certificate: Certificate = CERTIFICATE
    pair: FileIdentity | HybridIdentity = field(default_factory=FileIdentity.generate)
    path: Path | None = None

    def challenge(self) -> Challenge:
        return self.broker.challenge(self.certificate)

    def evidence(self, nonce: bytes, file_id: str, *, key: bytes | None = None, **report: Any) -> bytes:
        bound = report_data(nonce, key or self.pair.recipient.public_key, (file_id,))
        return encode_bundle([snp_lab().evidence(SnpReport(**{"report_data": bound, **report}))])

    def request(self, nonce: bytes | None = None, **changes: Any) -> ReleaseRequest:
        front = front_of(self.setting.structure(self.path))
        values = {
            "v": 1,
            "nonce": self.challenge().nonce if nonce is None else nonce,
            "public_key": self.pair.recipient.public_key,
            "file": front,
            "purpose": "exec",
        }
        return ReleaseRequest(**{**values, **changes})

    def release(self, request: ReleaseRequest | None = None, **changes: Any) -> Released:
        return self.broker.release(self.certificate, encode(request or self.request(**changes)))

    def attested(self, *, approval: str = "", **report: Any) -> ReleaseRequest:
        nonce = self.challenge().nonce
        file_id = self.setting.structure(self.path).header.file_id
        return self.request(nonce, evidence=self.evidence(nonce, file_id, **report), approval=approval)

    def renew(self, lease: str, *, evidence: bool = False, nonce: bytes | None = None, **report: Any) -> Renewed:
        drawn = self.challenge().nonce if nonce is None else nonce
        shown = self.evidence(drawn, self.setting.structure(self.path).header.file_id, **report) if evidence else b""
        request = RenewRequest(v=1, nonce=drawn, public_key=self.pair.recipient.public_key, lease=lease, evidence=shown)
        return self.broker.renew(self.certificate, encode(request))

    def key(self, request: ReleaseRequest, answer: Released) -> bytes | None:
        """The file key of an answer."""
        context = answer_context(
            request, client=self.certificate.fingerprint, lease=answer.lease, seconds=answer.seconds
        )
        own = self.pair.recipient
        return self.pair.unwrap(Wrap(own.kind, own.key_id, {}, answer.sealed), context)


def front_of(structure: Structure) -> FileFront:
    """What a client sends of a file."""
    wrap = structure.trailer.wraps[0]
    return FileFront(
        header=structure.encoded_header,
        floe_header=structure.floe_header,
        segments=structure.layout.segments,
        body_bytes=structure.layout.body_bytes,
        root=bytes.fromhex(structure.info.root),
        signature=structure.trailer.signature,
        wrap=SentWrap(wrap.kind, wrap.key_id, wrap.parameters, wrap.blob),
    )


def prepare(folder: Path) -> Setting:
    """An installation with a broker, a client `acme/web` with `CERTIFICATE`, and a file delivered to `lab`."""
    made = make(folder)
    return furnish(made.installation, made.owner, made.clock)


def furnish(installation: Installation, owner: Root, clock: ManualClock) -> Setting:
    """The same in an installation that is there."""
    home = installation.paths.home
    write_identity(home / "lab.identity", LAB, created=clock.now())
    (home / "broker.cedar").write_text(CEDAR)
    (home / "lab.pem").write_text(to_pem(snp_lab().ark))
    with installation.open_registry() as registry, registry.write() as records:
        client = records.clients.add("web", organisation="acme", actor=ACTOR)
        other = records.clients.add("other", organisation="acme", actor=ACTOR)
        records.identities.add(client.id, "certificate", CERTIFICATE.fingerprint)
        records.identities.add(other.id, "certificate", OTHER.fingerprint)
        if records.recipients.find("lab") is None:
            records.recipients.add("lab", kind="x25519", public_key=str(LAB.recipient))
    setting = Setting(installation, owner, clock, client, home.parent / "fraud.sealed").settle()
    setting.seal("fraud.sealed")
    return setting
