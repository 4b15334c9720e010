"""The settings of a running gate: what it opens, lets in and limits, and what it answers on each route."""

from typing import Annotated, Literal

from msgspec import Meta

from palladion.policy.privacy import PrivacyPolicy
from palladion.policy.section import Section
from palladion.policy.tensors import FixedPolicy, TensorPolicy


class GatePolicy(Section, frozen=True):
    """The API that `palladion serve` opens."""

    listen: Annotated[
        str,
        Meta(
            pattern=r"^((\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}|unix:[^\x00]{1,200})$",
            description="Address and port, or unix: and the path of a socket, for a proxy on this host. Any address "
            "but the loopback needs TLS, or a proxy in front that does it.",
        ),
    ] = "127.0.0.1:8710"
    grpc_listen: Annotated[
        str,
        Meta(
            pattern=r"^((\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5})?$",
            description="Address and port where routes of open-inference answer over gRPC as well; empty is off. Needs "
            "the grpc extra; certificates are those of this section (docs/protocols.md).",
        ),
    ] = ""
    socket_group: Annotated[
        str,
        Meta(description="Group that may connect to the Unix socket; empty lets in this process's own user alone."),
    ] = ""
    tls_certificate: Annotated[
        str, Meta(description="Certificate chain in PEM, relative to this file; empty serves plain HTTP.")
    ] = ""
    tls_key: Annotated[str, Meta(description="Private key of that certificate in PEM.")] = ""
    client_ca: Annotated[
        str,
        Meta(
            description="Certificates in PEM of who may vouch for clients (mTLS), relative to this file: the authority "
            "of one trust domain and no other, since whatever it signs is believed. Empty asks for no certificate."
        ),
    ] = ""
    client_certificate: Annotated[
        Literal["optional", "required"],
        Meta(description="With client_ca: whether who has no certificate may come in with an API key or a token."),
    ] = "optional"
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


class RoutePolicy(Section, frozen=True):
    """One route of the API: only what a `[[route]]` names is served."""

    model: Annotated[str, Meta(min_length=1, max_length=64, description="Model whose promoted version answers.")]
    path: Annotated[
        str,
        Meta(
            max_length=200,
            pattern=r"^(/[A-Za-z0-9._~/-]*)?$",
            description="Path of the route; empty means /v1/models/MODEL/predict. With open-inference and openai it "
            "goes before the paths that these have by themselves.",
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
    kind: Annotated[
        Literal["auto", "classes", "numbers", "embedding", "boxes", "mask"],
        Meta(
            description="What the answers are, which decides how they are cut down (docs/disclosure.md); `auto` tells "
            "class scores and single numbers by the outputs' shapes."
        ),
    ] = "auto"
    boxes_output: Annotated[
        str, Meta(max_length=512, description="Name of the output with boxes; empty finds it by its shape.")
    ] = ""
    threshold: Annotated[
        float,
        Meta(
            description="Score or number from which on clients decide otherwise: whatever is rounded stays on its side "
            "of it. inf declares none."
        ),
    ] = float("inf")
    band: Annotated[
        float,
        Meta(
            ge=0,
            le=1e12,
            description="Of predicted numbers: width of the bands of which degraded clients get the lower end; 0 "
            "leaves one significant digit.",
        ),
    ] = 0.0
    grid: Annotated[
        float,
        Meta(
            ge=0,
            le=1e6,
            description="Of boxes, the step of coordinates in the model's unit, of masks, the side of a block in "
            "pixels, that throttled clients get; degraded ones get four times it. Both kinds need it.",
        ),
    ] = 0.0
    perturbation: Annotated[
        Literal["none", "reverse-sigmoid", "modelguard-w"],
        Meta(
            description="Changes probabilities, and no label, for clients that are watched or worse. It costs thieves "
            "that learn from probabilities alone; whoever learns from labels loses nothing (docs/disclosure.md)."
        ),
    ] = "none"
    perturbation_max: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Most of an answer's probability that a perturbation moves (total variation).",
        ),
    ] = 0.2
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
    abstain: Annotated[
        float,
        Meta(
            ge=0,
            le=0.01,
            description="Share of honest queries that may be refused as the strangest, whoever asks: a request with "
            "such a row gets a problem that names it. Holds back thieves who ask what nobody else does. Needs a "
            "calibration; in steps of 0.0001. 0 refuses nothing (docs/watch.md).",
        ),
    ] = 0.0
    privacy: Annotated[
        PrivacyPolicy,
        Meta(
            description="Noise with a differential-privacy guarantee on every answer, paid from budgets that never "
            "come back. For a model that was not trained privately it is obfuscation unless sensitivity is 1 "
            "(docs/privacy.md)."
        ),
    ] = PrivacyPolicy()

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
            pattern=r"^(https?://[^\s]+|unix:/[^\s]+)?$",
            description="Address of the server that runs the model, such as http://127.0.0.1:8000, or the path "
            "of its socket, unix:/run/model.sock. Empty runs the model here, in this process.",
        ),
    ] = ""
    upstream_model: Annotated[
        str, Meta(max_length=200, description="Name of the model at the upstream; empty means the same as here.")
    ] = ""
    upstream_key: Annotated[
        str,
        Meta(description="File with the API key that the upstream wants, relative to this file; empty sends none."),
    ] = ""
    upstream_ca: Annotated[
        str,
        Meta(
            description="Certificates in PEM of a private authority that the upstream's certificate comes from, "
            "relative to this file; empty believes those of this host."
        ),
    ] = ""
    upstream_certificate: Annotated[
        str,
        Meta(description="Certificate chain in PEM that shows the upstream who asks; empty shows none."),
    ] = ""
    upstream_certificate_key: Annotated[str, Meta(description="Private key of that certificate in PEM.")] = ""
    upstream_insecure_http: Annotated[
        bool,
        Meta(
            description="Ask the upstream over plain HTTP beyond the loopback: whoever is on the way reads and changes "
            "questions and answers. For networks that encrypt by themselves."
        ),
    ] = False
    upstream_tensors: Annotated[
        Literal["auto", "binary", "json"],
        Meta(
            description="How arrays go to an upstream of open-inference: in bytes, which cost least, in JSON, or as "
            "the upstream says that it takes them."
        ),
    ] = "auto"

    # of protocol "json" alone
    upstream_path: Annotated[
        str, Meta(max_length=2000, pattern=r"^(/[!\"$-~]*)?$", description="Path at an upstream of json that is asked.")
    ] = ""
    inputs: Annotated[
        tuple[TensorPolicy, ...],
        Meta(
            max_length=256,
            description="Of json: what a request holds, each as { name, type, shape of a row, path }, with paths "
            "such as $.instances[*] (docs/protocols.md).",
        ),
    ] = ()
    outputs: Annotated[
        tuple[TensorPolicy, ...], Meta(max_length=256, description="Of json: what an answer holds, in the same form.")
    ] = ()
    fixed: Annotated[
        tuple[FixedPolicy, ...],
        Meta(max_length=64, description="Of json: what every request has besides, each as { path, value }."),
    ] = ()

    # of protocol "openai" alone (docs/chat.md)
    tokens_max: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="Most tokens of one answer of a language model; who asks for more gets so many, and who asks "
            "for none is not left to the server's own default.",
        ),
    ] = 4096
    tokens_degraded: Annotated[
        int,
        Meta(ge=1, le=10_000_000, description="Most tokens of one answer to a degraded client: enough to say that."),
    ] = 128
    choices_max: Annotated[
        int,
        Meta(ge=1, le=128, description="Most answers to one prompt (`n`): each costs the model as much as the first."),
    ] = 4
    logprobs: Annotated[
        Literal["never", "chosen", "top5"],
        Meta(
            description="Log-probabilities of tokens: `chosen` shows those of the text, `top5` up to five alternatives "
            "at each place as well. The more are shown, the fewer answers give away the model's last layer."
        ),
    ] = "never"
    logit_bias: Annotated[
        Literal["never", "blocklist", "any"],
        Meta(
            description="Biases of tokens, never together with log-probabilities: `blocklist` lets clients ban tokens, "
            "and `any` move them freely, from which the last layer can be computed by many answers alone."
        ),
    ] = "blocklist"
    reasoning: Annotated[
        bool,
        Meta(description="Show what a model thinks before it answers: what students are best trained on."),
    ] = False
    extra_fields: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}$")], ...],
        Meta(
            max_length=64,
            description="Further fields of requests that go to the server as they are, such as top_k or guided_json. "
            "All others are refused by name.",
        ),
    ] = ()
    engine: Annotated[
        Literal["", "vllm", "sglang", "tensorrt-llm"],
        Meta(
            description="Engine at the upstream that marks text: then no request can ask for text without a mark. "
            "SGLang takes a key of each client with each request, which this gate sends; the others have one key "
            "(docs/marks.md). Empty leaves requests alone."
        ),
    ] = ""
    calibration: Annotated[
        str,
        Meta(
            pattern=r"^([0-9a-f]{64})?$",
            description="Digest of the calibration by which the watch judges the texts that clients send, as "
            "`palladion watch calibrate` prints it; empty leaves the model unwatched.",
        ),
    ] = ""
    encoder: Annotated[
        str,
        Meta(
            max_length=1024,
            description="ONNX file of a sentence encoder by which the watch looks at texts, beside their n-grams; "
            "`palladion watch calibrate` uses it, and a calibration is bound to it. Some 30 ms of CPU a text. Needs "
            "tokenizer; empty looks at n-grams alone (docs/watch.md).",
        ),
    ] = ""
    tokenizer: Annotated[
        str, Meta(max_length=1024, description="The encoder's tokenizer.json, of kind WordPiece. Needs encoder.")
    ] = ""
    answer_seconds: Annotated[
        int, Meta(ge=1, le=86_400, description="Seconds in which an answer of a language model has to be complete.")
    ] = 600

    @property
    def route(self) -> str:
        """The path that is served, or for a protocol with paths of its own, what names the route."""
        if self.protocol == "open-inference":
            # several models can share a prefix, so the path alone would name none
            return f"{self.path.rstrip('/')}/v2/models/{self.model}"
        if self.protocol == "openai":
            # all models share the paths that answer, and the request says which one it means
            return f"{self.path.rstrip('/')}/v1/models/{self.model}"
        own = f"/v1/models/{self.model}/predict" if self.protocol in {"predict", "json"} else ""
        return self.path or own or f"{self.protocol}:{self.model}"
