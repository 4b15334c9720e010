"""The settings of how much may be asked: rates, requests at once, budgets of a day, and contracts of single clients."""

from typing import Annotated, Literal

from msgspec import Meta

from palladion.errors import PolicyError
from palladion.policy.section import Section

PER_SECOND_MAX = 1_000_000
A_DAY_MAX = 10**12  # more tokens than an organisation can be served; the sums stay exact in a double


def _per_second(description: str) -> Meta:
    return Meta(ge=0, le=PER_SECOND_MAX, description=description)


def _per_day(description: str, least: int = 0) -> Meta:
    return Meta(ge=least, le=A_DAY_MAX, description=description)


class LimitsPolicy(Section, frozen=True):
    """How much may be asked (docs/limits.md): 0 sets no limit, and a burst of 0 stands for ten seconds' queries.

    A throttled or degraded client gets a quarter of its rate.
    """

    queries_per_second: Annotated[
        float, Meta(gt=0, le=PER_SECOND_MAX, description="Queries a second that a client may ask on average.")
    ] = 50.0
    burst: Annotated[
        int, Meta(ge=1, le=PER_SECOND_MAX, description="Queries at once. A request with more rows is never admitted.")
    ] = 512
    user_queries_per_second: Annotated[
        float,
        _per_second(
            "The same for each end user of a client, where a token or a proxy that is believed names one: no single "
            "user can use up what all of them share."
        ),
    ] = 0.0
    user_burst: Annotated[int, _per_second("Queries of an end user at once.")] = 0
    organisation_queries_per_second: Annotated[
        float,
        _per_second("The same for all clients of an organisation together: more accounts then bring no more queries."),
    ] = 0.0
    organisation_burst: Annotated[int, _per_second("Queries of an organisation at once.")] = 0
    network_queries_per_second: Annotated[
        float,
        _per_second(
            "The same for each IPv4 address or IPv6 /64, whatever the clients, where the address can be believed. "
            "Behind a proxy it cannot."
        ),
    ] = 0.0
    network_burst: Annotated[int, _per_second("Queries of a network at once.")] = 0
    model_queries_per_second: Annotated[
        float, _per_second("The same for all who ask a model: as many as it can answer.")
    ] = 0.0
    model_burst: Annotated[int, _per_second("Queries to a model at once.")] = 0
    total_queries_per_second: Annotated[
        float, _per_second("The same for all clients and models together: as many as this host can answer.")
    ] = 0.0
    total_burst: Annotated[int, _per_second("Queries of all together at once.")] = 0
    requests_max: Annotated[
        int,
        Meta(
            ge=0,
            le=65536,
            description="Most requests of one client that are worked on at once. 0 stands for half of "
            "gate.requests_max, and more than that no client gets: its slow bodies would stop all others.",
        ),
    ] = 0
    model_requests_max: Annotated[
        int,
        Meta(
            ge=0,
            le=65536,
            description="Most requests to one model that are worked on at once, so that a slow one does not stop the "
            "others.",
        ),
    ] = 0
    queries_per_day: Annotated[int, _per_day("Queries that a client may have answered in a UTC day.")] = 0
    tokens_per_day: Annotated[
        int, _per_day("Tokens, asked and answered, of a client in a UTC day. A stream that passes them is cut.")
    ] = 0
    information_per_day: Annotated[
        int,
        _per_day(
            "Information that a client may be given in a UTC day: coverage buckets that were new to it, times the "
            "weight of what was disclosed. Asking again what was answered costs none."
        ),
    ] = 0
    organisation_queries_per_day: Annotated[
        int, _per_day("Queries that the clients of an organisation may have answered together in a UTC day.")
    ] = 0
    organisation_tokens_per_day: Annotated[
        int, _per_day("Tokens of all clients of an organisation together in a UTC day.")
    ] = 0
    organisation_information_per_day: Annotated[
        int, _per_day("Information that all clients of an organisation together may be given in a UTC day.")
    ] = 0

    def __post_init__(self) -> None:
        """Raises PolicyError on a burst of what has no rate: whoever set it believes that there is a limit."""
        for whose in ("user", "organisation", "network", "model", "total"):
            burst = getattr(self, f"{whose}_burst")
            if burst and not getattr(self, f"{whose}_queries_per_second"):
                raise PolicyError(
                    f"limits.{whose}_burst is {burst} and limits.{whose}_queries_per_second is 0: that limits nothing",
                    f"set limits.{whose}_queries_per_second as well",
                )


class ContractPolicy(Section, frozen=True):
    """What one client was promised in place of what all get. Where nothing is said, it gets what all get.

    Its precision holds until a person decides otherwise: no suspicion alone reduces it.
    """

    client: Annotated[
        str,
        Meta(
            max_length=129,
            examples=["acme/web"],
            pattern=r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)?$",
            description="Organisation and name of the client as `palladion client list` shows them, for example "
            "acme/web; the name alone where both are the same.",
        ),
    ]
    mode: Annotated[
        Literal["", "observe", "enforce"],
        Meta(
            description="Whether suspicion withholds anything from this client, on whatever route: `observe` records "
            "what would have been done, `enforce` does it; empty leaves it at the route's mode."
        ),
    ] = ""
    queries_per_second: Annotated[
        float, _per_second("Queries a second on average; 0 leaves it at limits.queries_per_second.")
    ] = 0.0
    burst: Annotated[
        int, _per_second("Queries at once; 0 leaves it at limits.burst, or at ten seconds' queries of a rate set here.")
    ] = 0
    queries_per_day: Annotated[
        int, _per_day("Queries in a UTC day, 0 for no budget; -1 leaves it at limits.queries_per_day.", -1)
    ] = -1
    tokens_per_day: Annotated[
        int, _per_day("Tokens in a UTC day, 0 for no budget; -1 leaves it at limits.tokens_per_day.", -1)
    ] = -1
    information_per_day: Annotated[
        int, _per_day("Information in a UTC day, 0 for no budget; -1 leaves it at limits.information_per_day.", -1)
    ] = -1
    answer: Annotated[
        Literal["", "scores", "label"],
        Meta(description="What is promised: scores and label, or the label alone; empty leaves it at the route's."),
    ] = ""
    decimals: Annotated[
        int, Meta(ge=-1, le=17, description="Decimals of scores that are promised; -1 leaves them at the route's.")
    ] = -1
    top_k: Annotated[
        int, Meta(ge=-1, le=1_000_000, description="Highest scores shown, 0 for all; -1 leaves it at the route's.")
    ] = -1

    @property
    def organisation_and_name(self) -> tuple[str, str]:
        """Whose contract it is."""
        organisation, _, name = self.client.partition("/")
        return organisation, name or organisation
