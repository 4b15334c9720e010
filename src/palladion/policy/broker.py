"""The settings of the key broker: where it listens, what it opens files with, and on what it releases their keys."""

from collections.abc import Collection
from typing import Annotated

from msgspec import Meta

from palladion.errors import PolicyError
from palladion.policy.section import Section


class ReleasePolicy(Section, frozen=True):
    """What the release of the keys of one model takes, beside a certificate and a Cedar policy that permits it."""

    model: Annotated[
        str,
        Meta(
            max_length=64,
            pattern=r"^[a-z0-9][a-z0-9._-]*$",
            description="The model. Of one that is not named, no key is released.",
            examples=["fraud"],
        ),
    ]
    attestation: Annotated[
        tuple[Annotated[str, Meta(max_length=64, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")], ...],
        Meta(
            max_length=8,
            description="Names of [[attestation]], each of which the machine has to satisfy. Without any, it proves "
            "nothing about itself: whoever has its certificate and private key gets the file's key.",
        ),
    ] = ()
    approvals: Annotated[
        int,
        Meta(ge=0, le=32, description="Approvers who have to agree to a release, for one client and one file."),
    ] = 0
    approved_hours: Annotated[
        int,
        Meta(ge=1, le=8784, description="Hours for which a release that was approved is renewed without asking anew."),
    ] = 720


class BrokerPolicy(Section, frozen=True):
    """The key broker: releases keys of sealed files for a while, to machines that prove themselves (docs/broker.md)."""

    listen: Annotated[
        str,
        Meta(
            pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$",
            description="Address and port. It speaks TLS 1.3 with client certificates alone.",
        ),
    ] = "127.0.0.1:8714"
    tls_certificate: Annotated[str, Meta(description="Its certificate chain in PEM.")] = ""
    tls_key: Annotated[str, Meta(description="The private key of that, in PEM.")] = ""
    client_ca: Annotated[
        str, Meta(description="The authorities, in PEM, that vouch for the certificates of clients.")
    ] = ""
    identities: Annotated[
        tuple[Annotated[str, Meta(max_length=1024)], ...],
        Meta(
            max_length=64,
            description="What it opens files with: identity files, or keys in an HSM, a TPM or a cloud "
            "(pkcs11:…, tpm:…, awskms:…). Copies for machines are delivered to these recipients.",
        ),
    ] = ()
    policies: Annotated[
        str, Meta(description="File of Cedar policies that say which client gets which file for what purpose.")
    ] = ""
    lease_minutes: Annotated[
        int,
        Meta(
            ge=1,
            le=1440,
            description="Minutes for which a key is released; the client asks again at half of that. So long a revoked "
            "client goes on at most.",
        ),
    ] = 30
    nonce_seconds: Annotated[
        int,
        Meta(
            ge=5, le=600, description="Seconds in which evidence has to be made for a nonce. A TDX quote takes up to 5."
        ),
    ] = 60
    per_minute: Annotated[
        int,
        Meta(ge=1, le=6000, description="Requests of one client in a minute; each file takes two at each renewal."),
    ] = 60
    release: Annotated[
        tuple[ReleasePolicy, ...],
        Meta(max_length=256, description="What each model's release takes, as [[broker.release]] tables."),
    ] = ()


def check_broker(broker: BrokerPolicy, attestations: Collection[str]) -> None:
    """Raise PolicyError for a release that names no attestation, or a model that is named twice."""
    models = [one.model for one in broker.release]
    for one in broker.release:
        if models.count(one.model) > 1:
            raise PolicyError(f"broker.release: {one.model} stands there twice")
        missing = next((name for name in one.attestation if name not in attestations), None)
        if missing is not None:
            raise PolicyError(
                f"broker.release: {one.model} needs attestation {missing}, and there is no [[attestation]] of it"
            )
