"""The settings of a running gate: what it opens, lets in, limits, watches, keeps, and answers on each route."""

from typing import Annotated, Literal

from msgspec import Meta

from palladion.policy.section import Section


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
            description="Cells of alike queries of which the first is kept, of each client and version on routes that "
            "mark answers, drawn at random from all it asked, with the unmarked answers; 64 MiB at most. Nothing is "
            "kept of other routes. 0 keeps nothing, and no route may mark then.",
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

    protocol: Annotated[
        Literal["predict", "open-inference", "json", "openai"],
        Meta(
            description="How clients ask, and what an upstream speaks: predict is this gate's own JSON; open-inference "
            "the Open Inference Protocol v2 of KServe, Triton, MLServer and others; json any other JSON, by paths; "
            "openai the API of OpenAI, vLLM, llama.cpp and others (docs/protocols.md)."
        ),
    ] = "predict"
    upstream: Annotated[
        str,
        Meta(
            max_length=2000,
            pattern=r"^(https?://[^\s]+)?$",
            description="Address of the server that runs the model, such as http://127.0.0.1:8000. Empty runs the "
            "model here, in this process.",
        ),
    ] = ""
    upstream_model: Annotated[
        str, Meta(max_length=200, description="Name of the model at the upstream; empty means the same as here.")
    ] = ""
    upstream_key: Annotated[
        str,
        Meta(description="File with the API key that the upstream wants, relative to this file; empty sends none."),
    ] = ""

    @property
    def route(self) -> str:
        """The path that is served, or for a protocol with paths of its own, what names the route."""
        own = f"/v1/models/{self.model}/predict" if self.protocol in {"predict", "json"} else ""
        return self.path or own or f"{self.protocol}:{self.model}"
