"""The settings of `palladion.toml` as frozen structs: each with its default, its limits and its reason.

The template that `palladion init` writes, docs/policy.md and the checks all come from the fields below.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from palladion.errors import PolicyError

GIB = 1024**3


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the tables of `palladion.toml`: immutable, and unknown settings are refused."""


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
    ] = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


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


class GatePolicy(Section, frozen=True):
    """The API that `palladion serve` opens."""

    listen: Annotated[
        str,
        Meta(
            pattern=r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$",
            description="Address and port. Anything but the loopback needs TLS, or a proxy in front that does it.",
        ),
    ] = "127.0.0.1:8710"
    tls_certificate: Annotated[
        str, Meta(description="Certificate chain in PEM, relative to this file; empty serves plain HTTP.")
    ] = ""
    tls_key: Annotated[str, Meta(description="Private key of that certificate in PEM.")] = ""
    behind_proxy: Annotated[
        bool,
        Meta(
            description="Serve plain HTTP beyond the loopback, because a proxy on this host or network ends TLS. "
            "Addresses then are the proxy's, and link nobody."
        ),
    ] = False
    body_bytes_max: Annotated[
        int, Meta(ge=1024, le=64 * 1024 * 1024, description="Largest request body, in bytes.")
    ] = 1024 * 1024
    body_seconds_max: Annotated[
        int, Meta(ge=1, le=600, description="Seconds in which a request body has to arrive; slow senders are cut off.")
    ] = 10
    rows_max: Annotated[int, Meta(ge=1, le=4096, description="Most queries (rows) in one request.")] = 256
    requests_max: Annotated[
        int, Meta(ge=1, le=65536, description="Most requests worked on at once; further ones get 503.")
    ] = 256
    deadline_ms: Annotated[
        int, Meta(ge=10, le=600_000, description="Milliseconds in which an answer has to be ready and recorded.")
    ] = 10_000
    threads: Annotated[int, Meta(ge=1, le=256, description="Threads that run models.")] = 2


class LimitsPolicy(Section, frozen=True):
    """How much a client may ask (GCRA, exact for every client). A throttled or degraded one gets a quarter."""

    queries_per_second: Annotated[
        float, Meta(gt=0, le=1_000_000, description="Queries a second that a client may ask on average.")
    ] = 50.0
    burst: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Queries at once. A request with more rows is never admitted.")
    ] = 512


class WatchPolicy(Section, frozen=True):
    """When a client is taken for a thief, and what follows (docs/watch.md)."""

    alpha_watched: Annotated[
        float,
        Meta(
            gt=0,
            le=0.5,
            description="Share of honest clients that may be watched by mistake in an epoch. Watched changes no "
            "answer.",
        ),
    ] = 0.01
    alpha_suspected: Annotated[
        float,
        Meta(
            gt=0,
            le=0.1,
            description="Share of honest clients that may be throttled or worse by mistake in an epoch. Needs as many "
            "calibration clients as one divided by it, less one: 999 for 0.001.",
        ),
    ] = 0.001
    alpha_campaign: Annotated[
        float,
        Meta(
            gt=0,
            le=0.1,
            description="The same share for organisations whose members' queries are judged together. Needs one "
            "divided by it, less one, calibration organisations: 199 for 0.005.",
        ),
    ] = 0.005
    degrade_after: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Suspicious queries after which a client gets labels only.")
    ] = 8
    suspend_after: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Suspicious queries after which a client is suspended.")
    ] = 16
    simulated_may_enforce: Annotated[
        bool,
        Meta(
            description="Let a calibration from simulated clients do more than watch. Its rates hold for clients like "
            "the simulated ones, which yours may not be."
        ),
    ] = False
    suspend_campaigns: Annotated[
        bool,
        Meta(description="Let linked accounts be suspended together without a person; they are degraded otherwise."),
    ] = False
    information_budget: Annotated[
        int,
        Meta(
            ge=0,
            le=16_384,
            description="Most coverage buckets, of 16384, that a client and its linked accounts may have answered; "
            "beyond it they are throttled. 0 sets no budget.",
        ),
    ] = 0
    recover_hours: Annotated[
        int,
        Meta(
            ge=1,
            le=8760,
            description="Hours without suspicion after which a standing is raised by one step. A suspension is lifted "
            "by a person.",
        ),
    ] = 24


class RetentionPolicy(Section, frozen=True):
    """Which queries are kept, encrypted, so that a student can be traced to the account that trained it."""

    queries: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Queries kept of each client and version on routes that mark answers, drawn at random from all "
            "it asked, with the unmarked answers; 64 MiB at most. Nothing is kept of other routes. 0 keeps nothing, "
            "and no route may mark then.",
        ),
    ] = 5000


class RoutePolicy(Section, frozen=True):
    """One route of the API: only what a `[[route]]` names is served."""

    model: Annotated[str, Meta(min_length=1, max_length=64, description="Model whose promoted version answers.")]
    path: Annotated[
        str,
        Meta(
            max_length=200,
            pattern=r"^(/[A-Za-z0-9._~/-]*)?$",
            description="Path of the route; empty means /v1/models/MODEL/predict.",
        ),
    ] = ""
    mode: Annotated[
        Literal["observe", "enforce"],
        Meta(
            description="`observe` measures, records what would have been done, and withholds nothing for suspicion; "
            "`enforce` does it."
        ),
    ] = "observe"
    answer: Annotated[
        Literal["scores", "label"],
        Meta(description="What the contract with clients promises: scores and label, or the label alone."),
    ] = "scores"
    decimals: Annotated[
        int, Meta(ge=0, le=17, description="Decimals of scores that the contract promises; 17 leaves them as they are.")
    ] = 17
    top_k: Annotated[
        int, Meta(ge=0, le=1_000_000, description="Highest scores shown of each answer, the others are 0; 0 shows all.")
    ] = 0
    scores_output: Annotated[
        str, Meta(max_length=512, description="Name of the output with class scores; empty finds it by its type.")
    ] = ""
    label_output: Annotated[
        str, Meta(max_length=512, description="Name of the output with labels; empty finds it by its type.")
    ] = ""
    flipped: Annotated[
        float,
        Meta(
            ge=0,
            le=0.1,
            description="Share of labels that may turn into the second highest class, where the model is unsure, so "
            "that a student names the account that trained it: 0.03 traces one of 5,000 answers. 0 marks nothing. "
            "Needs class scores and a calibration.",
        ),
    ] = 0.0

    @property
    def route(self) -> str:
        """The path that is served."""
        return self.path or f"/v1/models/{self.model}/predict"


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
    watch: WatchPolicy = WatchPolicy()
    retention: RetentionPolicy = RetentionPolicy()
    route: tuple[RoutePolicy, ...] = ()

    def __post_init__(self) -> None:
        """Raises PolicyError where two sections contradict each other."""
        marking = next((route for route in self.route if route.flipped > 0), None)
        if marking is not None and self.retention.queries == 0:
            raise PolicyError(
                f"route {marking.route} marks answers (flipped = {marking.flipped}), and retention.queries is 0: "
                "a mark is tested on the queries that were kept, so none could ever be found",
                "set retention.queries, for example to 5000, or flipped = 0",
            )
