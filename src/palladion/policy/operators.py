"""The settings of who looks after a running gate: how operators sign in, and what their role comes from."""

from collections.abc import Iterable
from itertools import chain
from typing import Annotated

from msgspec import Meta

from palladion.errors import PolicyError
from palladion.policy.access import Algorithm, IssuerPolicy
from palladion.policy.operations import OperationsPolicy
from palladion.policy.section import Section

_Values = tuple[str, ...]
_GROUPS_MAX = 64


class OperatorsPolicy(Section, frozen=True):
    """Who looks after a running gate: how operators sign in, and which role each has (docs/operators.md)."""

    issuer: Annotated[
        str,
        Meta(
            max_length=150,
            pattern=r"^(https?://[!-\"$-~]+)?$",
            description="Provider by which operators sign in (OpenID Connect), as its tokens name it; empty lets "
            "nobody sign in so.",
        ),
    ] = ""
    client_id: Annotated[
        str,
        Meta(
            max_length=200,
            pattern=r"^[!-~]*$",
            description="Name under which Palladion is registered there: a public client with PKCE, and with the "
            "redirect address http://127.0.0.1/callback on any port.",
        ),
    ] = ""
    audience: Annotated[
        str,
        Meta(
            max_length=500,
            description="What access tokens of operators have to name as their audience. Empty takes ID tokens, whose "
            "audience is client_id, instead.",
        ),
    ] = ""
    scope: Annotated[
        str, Meta(max_length=500, pattern=r"^openid( [!-~]+)*$", description="Scopes that are asked for at sign-in.")
    ] = "openid"
    keys: Annotated[
        str,
        Meta(
            max_length=2000,
            description="Address or file of its public keys (a JWK set); an address needs https beyond the loopback. "
            "Empty means where its /.well-known/openid-configuration says.",
        ),
    ] = ""
    ca: Annotated[
        str,
        Meta(
            max_length=4096,
            description="File of authorities, in PEM, that vouch for where the keys are fetched from; empty means the "
            "system's.",
        ),
    ] = ""
    algorithms: Annotated[
        tuple[Algorithm, ...],
        Meta(min_length=1, max_length=10, description="Signatures that are accepted, whatever a token says of itself."),
    ] = ("RS256", "ES256")
    age_seconds_max: Annotated[
        int,
        Meta(ge=60, le=86_400, description="Seconds after its issue (`iat`) for which such a token counts at most."),
    ] = 3600
    skew_seconds: Annotated[
        int, Meta(ge=0, le=300, description="Seconds by which the provider's clock and ours may differ.")
    ] = 30
    session_seconds: Annotated[
        int,
        Meta(ge=300, le=43_200, description="Seconds that a session lasts, after which one has to sign in again."),
    ] = 3600
    role_claim: Annotated[
        str,
        Meta(
            max_length=100,
            description="Claim from which the role of somebody comes whom the registry does not know, for example "
            "groups; empty lets in nobody but operators of the registry (`palladion operator add`).",
        ),
    ] = ""
    viewers: Annotated[
        _Values, Meta(max_length=_GROUPS_MAX, description="Values of that claim that make somebody a viewer.")
    ] = ()
    analysts: Annotated[
        _Values, Meta(max_length=_GROUPS_MAX, description="Values of that claim that make somebody an analyst.")
    ] = ()
    approvers: Annotated[
        _Values, Meta(max_length=_GROUPS_MAX, description="Values of that claim that make somebody an approver.")
    ] = ()
    admins: Annotated[
        _Values, Meta(max_length=_GROUPS_MAX, description="Values of that claim that make somebody an admin.")
    ] = ()
    auditors: Annotated[
        _Values, Meta(max_length=_GROUPS_MAX, description="Values of that claim that make somebody an auditor.")
    ] = ()
    proposal_days: Annotated[
        int, Meta(ge=1, le=90, description="Days in which a proposal has to be decided by a second person.")
    ] = 7
    socket: Annotated[
        str,
        Meta(
            max_length=100,
            description="Unix socket for operators of this machine, relative to this file: each is who the system says "
            "(`user:NAME`). Its folder has to let them through. Empty opens none.",
        ),
    ] = ""
    socket_group: Annotated[
        str,
        Meta(max_length=64, description="Group that may connect to that socket; empty lets every user of the machine."),
    ] = ""

    @property
    def wanted(self) -> bool:
        """Whether there is any way to sign in."""
        return bool(self.issuer or self.socket)

    @property
    def groups(self) -> dict[str, str]:
        """The role that each value of the claim gives."""
        lists = {
            "viewer": self.viewers,
            "analyst": self.analysts,
            "approver": self.approvers,
            "admin": self.admins,
            "auditor": self.auditors,
        }
        return {value: role for role, values in lists.items() for value in values}

    @property
    def as_issuer(self) -> IssuerPolicy:
        """The same as of an issuer of tokens, by which they are verified like those of clients."""
        return IssuerPolicy(
            url=self.issuer,
            audience=self.audience or self.client_id,
            keys=self.keys,
            ca=self.ca,
            algorithms=self.algorithms,
            age_seconds_max=self.age_seconds_max,
            skew_seconds=self.skew_seconds,
        )


def check_operators(policy: OperatorsPolicy, operations: OperationsPolicy, issuers: Iterable[IssuerPolicy]) -> None:
    """Raise PolicyError for what contradicts itself, or would let clients in as operators."""
    if bool(policy.issuer) != bool(policy.client_id):
        raise PolicyError("operators.issuer and operators.client_id go together, and one of them is empty")
    values = list(chain(policy.viewers, policy.analysts, policy.approvers, policy.admins, policy.auditors))
    if bool(values) != bool(policy.role_claim) or (policy.role_claim and not policy.issuer):
        raise PolicyError(
            "operators.role_claim needs operators.issuer, and values that give a role, such as operators.viewers; "
            "and values need the claim"
        )
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise PolicyError(f"operators: {twice!r} gives two roles", "one person has one role: leave one of them")
    if policy.issuer and not operations.listen and not policy.socket:
        raise PolicyError(
            "operators.issuer is set, and nothing listens for operators", "set operations.listen, or operators.socket"
        )
    if policy.audience and policy.audience == policy.client_id:
        raise PolicyError(
            "operators.audience is operators.client_id, the audience of ID tokens: they could not be told apart",
            "leave it empty to take ID tokens, or name the audience of access tokens",
        )
    audience = policy.audience or policy.client_id
    if policy.issuer and any(item.url == policy.issuer and item.audience == audience for item in issuers):
        raise PolicyError(
            f"operators and an [[issuer]] of clients share issuer and audience ({audience}): a client's token would be "
            "an operator's",
            "give operators a client_id of their own",
        )
