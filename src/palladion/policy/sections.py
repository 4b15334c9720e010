"""The settings of `palladion.toml` as frozen structs: each with its default, its limits and its reason.

Those of a running gate are in `serving`. The template that `palladion init` writes, docs/policy.md and the checks all
come from these fields.
"""

from typing import Annotated

from msgspec import Meta

from palladion.errors import PolicyError
from palladion.policy.access import AccessPolicy, IssuerPolicy, ProxyPolicy
from palladion.policy.alerting import AlertPolicy, OnCallPolicy, check_alerts
from palladion.policy.approvals import ApprovalsPolicy
from palladion.policy.attestation import AttestationPolicy, check_attestation
from palladion.policy.auditing import RedteamPolicy
from palladion.policy.broker import BrokerPolicy, check_broker
from palladion.policy.egress import EgressPolicy
from palladion.policy.encrypted import EncryptedPolicy
from palladion.policy.intelligence import FeedPolicy, IntelPolicy, check_feeds
from palladion.policy.limits import ContractPolicy, LimitsPolicy
from palladion.policy.operations import OperationsPolicy
from palladion.policy.operators import OperatorsPolicy, check_operators
from palladion.policy.privacy import check_privacy
from palladion.policy.resellers import ResellersPolicy
from palladion.policy.section import Section
from palladion.policy.serving import GatePolicy, RoutePolicy
from palladion.policy.watching import RetentionPolicy, WatchPolicy

GIB = 1024**3


class InstallationPolicy(Section, frozen=True):
    """Where this installation keeps its state."""

    directory: Annotated[
        str,
        Meta(
            min_length=1,
            description="Folder of registry, ledger, keyrings and sealed files, relative to this file. "
            "It holds no plaintext model and no unwrapped key.",
        ),
    ] = ".palladion"


class KeysPolicy(Section, frozen=True):
    """Where keys lie, and who can recover them (docs/keys.md)."""

    owner: Annotated[
        str,
        Meta(
            description="Keyring file of the owner root; empty means keys/owner.json in the installation folder. "
            "Point it to a removable disk and take the disk away: a host that only serves needs no owner root."
        ),
    ] = ""
    host_identity: Annotated[
        str,
        Meta(
            min_length=1,
            description="Identity file that unlocks the gate root on this host. Keep it outside the installation "
            "folder, so that a copy of the folder opens nothing.",
        ),
    ] = "~/.config/palladion/host.identity"
    escrow: Annotated[
        tuple[str, ...],
        Meta(
            max_length=8,
            description="Public keys of escrow recipients (`palladion recipient new`), who can open what the owner "
            "can. Without one, a forgotten owner passphrase loses every original.",
        ),
    ] = ()


class TrustPolicy(Section, frozen=True):
    """Whose sealed files are accepted."""

    publishers: Annotated[
        tuple[str, ...],
        Meta(
            max_length=256,
            description="Public keys of publishers whose sealed files are accepted, besides this installation's own. "
            "A key that a file names for itself is never trusted.",
        ),
    ] = ()


class RegistryPolicy(Section, frozen=True):
    """Where models, versions, recipients, clients and incidents are listed."""

    url: Annotated[
        str,
        Meta(description="SQLAlchemy URL of the registry; empty means registry.sqlite in the installation folder."),
    ] = ""


class LedgerPolicy(Section, frozen=True):
    """The tamper-evident log."""

    origin: Annotated[
        str,
        Meta(
            max_length=200,
            pattern=r"^[^\s+]*$",
            description="Name of this log in its checkpoints: a domain and path without scheme that you control, for "
            "example ledger.example.com/fraud. Empty means a random name, made at init. It cannot change later.",
        ),
    ] = ""
    key: Annotated[
        str,
        Meta(
            max_length=300,
            pattern=r"^([^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44})?$",
            description="Public key that signs this log (a C2SP verifier key), written at init. A ledger or a gate "
            "root with another key is refused. Empty believes keys/gate.json, which whoever writes to the folder can "
            "replace together with the ledger.",
        ),
    ] = ""
    witnesses: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44} https?://[!-~]+$")], ...],
        Meta(
            max_length=16,
            description="Who is asked to cosign checkpoints (c2sp.org/tlog-witness), each as its key and the address "
            "before /add-checkpoint. They are what shows that a log was cut or rewritten by somebody who has its key, "
            "so let others run them.",
        ),
    ] = ()
    witness_quorum: Annotated[
        int,
        Meta(ge=1, le=16, description="How many witnesses have to cosign before a checkpoint counts as witnessed."),
    ] = 1
    witness_seconds: Annotated[
        int,
        Meta(ge=5, le=86_400, description="How often a gate that serves asks them, in seconds."),
    ] = 60


class ScanPolicy(Section, frozen=True):
    """What `protect` agrees to read."""

    file_bytes_max: Annotated[
        int,
        Meta(
            ge=1,
            le=1024 * GIB,
            description="Largest model, all its files together, in bytes. A model is held in memory while it is "
            "protected.",
        ),
    ] = 16 * GIB
    operator_domains: Annotated[
        tuple[str, ...],
        Meta(
            max_length=64,
            description="ONNX operator domains that may occur. Operators of any other domain need a native library, "
            "which is code that the scanner cannot see into.",
        ),
    ] = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")
    allow_suspicious: Annotated[
        bool,
        Meta(
            description="Let `protect` read, and `palladion scan` pass, what is only suspicious: program text beside a "
            "model, pickles in strings, a class that nobody knows. What is refused stays refused."
        ),
    ] = False


class ProtectPolicy(Section, frozen=True):
    """What `protect` does with a model."""

    promote_first: Annotated[
        bool,
        Meta(
            description="Promote version 1 of a new model at once; later versions wait for `palladion model promote`."
        ),
    ] = True
    triggers: Annotated[
        int,
        Meta(
            ge=0,
            le=4096,
            description="Secret inputs with labels that a classifier is taught, by which it is recognised through an "
            "API. Put in only where `protect --rows` gives rows of your own, because without them the loss is not "
            "known; halved, down to 16, while more than 2 % of these rows would be answered otherwise. 0 puts in none.",
        ),
    ] = 64


class PassphrasePolicy(Section, frozen=True):
    """How expensive it is to guess a passphrase (Argon2id, RFC 9106)."""

    memory_mib: Annotated[
        int,
        Meta(
            ge=19,
            le=1024,
            description="Memory of one guess in MiB. RFC 9106 names 64 MiB with 3 passes as its setting for machines "
            "short of memory; 19 MiB is the least that OWASP accepts.",
        ),
    ] = 256
    passes: Annotated[int, Meta(ge=1, le=4, description="Passes over that memory.")] = 3


class Policy(Section, frozen=True):
    """All settings of an installation."""

    installation: InstallationPolicy = InstallationPolicy()
    keys: KeysPolicy = KeysPolicy()
    trust: TrustPolicy = TrustPolicy()
    registry: RegistryPolicy = RegistryPolicy()
    ledger: LedgerPolicy = LedgerPolicy()
    scan: ScanPolicy = ScanPolicy()
    protect: ProtectPolicy = ProtectPolicy()
    passphrase: PassphrasePolicy = PassphrasePolicy()
    gate: GatePolicy = GatePolicy()
    limits: LimitsPolicy = LimitsPolicy()
    resellers: ResellersPolicy = ResellersPolicy()
    watch: WatchPolicy = WatchPolicy()
    retention: RetentionPolicy = RetentionPolicy()
    operations: OperationsPolicy = OperationsPolicy()
    operators: OperatorsPolicy = OperatorsPolicy()
    approvals: ApprovalsPolicy = ApprovalsPolicy()
    broker: BrokerPolicy = BrokerPolicy()
    egress: EgressPolicy = EgressPolicy()
    oncall: OnCallPolicy = OnCallPolicy()
    proxy: ProxyPolicy = ProxyPolicy()
    access: AccessPolicy = AccessPolicy()
    intel: IntelPolicy = IntelPolicy()
    redteam: RedteamPolicy = RedteamPolicy()
    issuer: tuple[IssuerPolicy, ...] = ()
    contract: tuple[ContractPolicy, ...] = ()
    alert: tuple[AlertPolicy, ...] = ()
    route: tuple[RoutePolicy, ...] = ()
    feed: tuple[FeedPolicy, ...] = ()
    attestation: tuple[AttestationPolicy, ...] = ()
    encrypted: tuple[EncryptedPolicy, ...] = ()

    def __post_init__(self) -> None:
        """Raises PolicyError where two sections contradict each other."""
        check_operators(self.operators, self.operations, self.issuer)
        check_alerts(self.alert, self.oncall)
        check_feeds(self.feed)
        check_attestation(self.attestation)
        check_broker(self.broker, {one.name for one in self.attestation})
        check_privacy(self.route, {item.model for item in self.encrypted})
        marking = next((route for route in self.route if route.flipped > 0), None)
        if marking is not None and self.retention.queries == 0:
            raise PolicyError(
                f"route {marking.route} marks answers (flipped = {marking.flipped}), and retention.queries is 0: "
                "a mark is tested on the queries that were kept, so none could ever be found",
                "set retention.queries, for example to 5000, or flipped = 0",
            )
        abstaining = next((route for route in self.route if route.abstain > 0 and route.protocol == "openai"), None)
        if abstaining is not None:
            raise PolicyError(
                f"route {abstaining.route} refuses strange queries (abstain = {abstaining.abstain:g}), which cannot be "
                "done for texts: how unlike a text is depends on what its client asked before, and is known when the "
                "answer has begun",
                "set abstain = 0",
            )
        whose = [contract.organisation_and_name for contract in self.contract]
        twice = next((name for name in whose if whose.count(name) > 1), None) if len(set(whose)) < len(whose) else None
        if twice is not None:
            raise PolicyError(f"client {'/'.join(twice)} has two contracts", "put its settings into one [[contract]]")
