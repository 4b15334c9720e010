"""The settings of how a running gate is looked after: its second port, its logs, telemetry, and how it ends."""

from typing import Annotated, Literal

from msgspec import Meta

from palladion.policy.section import Section


class OperationsPolicy(Section, frozen=True):
    """How a running gate is looked after (docs/operations.md)."""

    listen: Annotated[
        str,
        Meta(
            pattern=r"^((\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5})?$",
            description="Address and port of metrics, health pages and verdicts for a proxy, such as 127.0.0.1:8711; "
            "empty opens none. Any address but the loopback needs TLS and a token.",
        ),
    ] = ""
    token: Annotated[
        str,
        Meta(
            description="File with the token that who asks for metrics has to show (Authorization: Bearer), relative "
            "to this file; at least 32 characters. Health pages need none."
        ),
    ] = ""
    tls_certificate: Annotated[
        str, Meta(description="Certificate chain of that port in PEM, relative to this file; empty serves plain HTTP.")
    ] = ""
    tls_key: Annotated[str, Meta(description="Private key of that certificate in PEM.")] = ""
    log: Annotated[
        Literal["text", "json"],
        Meta(description="Form of the lines on standard error: sentences, or one JSON object a line for collectors."),
    ] = "text"
    log_every: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="Write a line for one of so many requests: route, status and time, never who asked or what. 0 "
            "writes none; the ledger has them all.",
        ),
    ] = 0
    drain_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=600,
            description="Seconds between SIGTERM and the end in which requests are still taken, while /health/ready "
            "says no already: as long as a load balancer takes to notice.",
        ),
    ] = 0
    otlp: Annotated[
        str,
        Meta(
            max_length=2000,
            pattern=r"^(https?://[!-~]+)?$",
            description="Address of an OpenTelemetry collector that takes OTLP over HTTP, for example "
            "http://127.0.0.1:4318; empty sends nothing. Needs the extra otel.",
        ),
    ] = ""
    otlp_seconds: Annotated[int, Meta(ge=1, le=3600, description="Seconds between two sendings.")] = 15
    trace_every: Annotated[
        int,
        Meta(ge=0, le=1_000_000_000, description="Send a span for one of so many requests; 0 sends none."),
    ] = 0
