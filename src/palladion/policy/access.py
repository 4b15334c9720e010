"""The settings of who may come in beside those with API keys, whom we believe about others, and who may do what."""

from typing import Annotated, Literal

from msgspec import Meta

from palladion.policy.section import Section

_HEADER = r"^([a-z0-9][a-z0-9-]{0,63})?$"

# Signatures that nobody can make who can check them. Neither `none` nor HMAC: a public key would be its secret
# (RFC 8725 §2.1).
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class IssuerPolicy(Section, frozen=True):
    """One issuer of tokens (JWT) whose clients may come in without an API key (docs/access.md)."""

    url: Annotated[
        str,
        Meta(
            max_length=500,
            pattern=r"^https?://[!-~]+$",
            examples=["https://login.example.com/acme"],
            description="What its tokens name as their issuer (`iss`), compared letter by letter.",
        ),
    ]
    audience: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=500,
            examples=["https://gate.example.com"],
            description="What a token has to name as its audience (`aud`): a name of this gate alone, so that no token "
            "for somebody else opens it.",
        ),
    ]
    keys: Annotated[
        str,
        Meta(
            max_length=2000,
            description="Address or file of its public keys (a JWK set); an address needs https beyond the loopback. "
            "Empty means where the issuer's /.well-known/openid-configuration says.",
        ),
    ] = ""
    ca: Annotated[
        str,
        Meta(
            max_length=4096,
            description="File of authorities, in PEM, that vouch for where the keys are fetched from, and no others "
            "do; empty means the system's.",
        ),
    ] = ""
    algorithms: Annotated[
        tuple[Algorithm, ...],
        Meta(min_length=1, max_length=10, description="Signatures that are accepted, whatever a token says of itself."),
    ] = ("RS256", "ES256")
    type: Annotated[
        Literal["", "JWT", "at+jwt"],
        Meta(
            description="What the tokens have to say of their kind (`typ`), so that an ID token is not taken for an "
            "access token; empty takes both, and tokens that say nothing."
        ),
    ] = ""
    client_claim: Annotated[
        str, Meta(min_length=1, max_length=100, description="Claim that names the client: sub, azp or client_id.")
    ] = "sub"
    user_claim: Annotated[
        str,
        Meta(max_length=100, description="Claim that names the client's own user, on whose behalf it asks, if any."),
    ] = ""
    age_seconds_max: Annotated[
        int, Meta(ge=60, le=604_800, description="Seconds after its issue (`iat`) for which a token counts at most.")
    ] = 86_400
    skew_seconds: Annotated[
        int, Meta(ge=0, le=300, description="Seconds by which the issuer's clock and ours may differ.")
    ] = 30


class ProxyPolicy(Section, frozen=True):
    """A proxy in front that is believed what it says of clients. It has to prove itself: an address proves nothing."""

    identities: Annotated[
        tuple[str, ...],
        Meta(
            max_length=64,
            description="Who it is: SPIFFE ids, or SHA-256 fingerprints of certificates in hexadecimal (see "
            "gate.client_ca). Whoever comes through a Unix socket (gate.listen) is a proxy too.",
        ),
    ] = ()
    certificate_header: Annotated[
        Literal["", "x-forwarded-client-cert"],
        Meta(
            description="Header with the client's certificate, in Envoy's format; it has to describe one certificate. "
            "Empty believes none."
        ),
    ] = ""
    user_header: Annotated[
        str, Meta(pattern=_HEADER, description="Header with the client's own user, on whose behalf it asks.")
    ] = ""
    address_header: Annotated[
        str,
        Meta(pattern=_HEADER, description="Header with the one network address of the client, such as x-real-ip."),
    ] = ""
    payment_header: Annotated[
        str,
        Meta(
            pattern=_HEADER,
            description="Header with a name of the client's means of payment, such as a token of the card: accounts "
            "that share it are judged together.",
        ),
    ] = ""
    device_header: Annotated[
        str,
        Meta(
            pattern=_HEADER,
            description="Header with a name of the client's device, such as an id that the device attests: up to 20 "
            "accounts that share it are judged together.",
        ),
    ] = ""
    tls_header: Annotated[
        str,
        Meta(
            pattern=_HEADER,
            description="Header with the fingerprint of the client's TLS (JA4): up to 20 accounts that show it in one "
            "neighbourhood (address_header) within one hour are judged together.",
        ),
    ] = ""
    asn_header: Annotated[
        str,
        Meta(
            pattern=_HEADER,
            description="Header with the number of the autonomous system that the client's address belongs to, such as "
            "64500 or AS64500: feeds of kind asn are looked into with it.",
        ),
    ] = ""


class AccessPolicy(Section, frozen=True):
    """Which client may do what, beyond the models and routes that it was registered for."""

    policies: Annotated[
        str,
        Meta(
            description="File of Cedar policies, relative to this file. Once there is one, what it does not permit is "
            "refused, and what it forbids is refused whatever else permits it (docs/access.md). A reload takes it over."
        ),
    ] = ""
