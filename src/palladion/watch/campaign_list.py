"""The campaigns that a watch judges together: who is in each, what links them, and what speaks against them.

Only asks the watch; what a group is, and how it is weighed, is in `campaigns`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from palladion.watch.explanation import Explanation
from palladion.watch.links import DEVICE, PAYMENT
from palladion.watch.watch import Watch

MEMBERS_SHOWN_MAX = 100  # of a campaign of thousands, an operator reads the first
LINKS_SHOWN_MAX = 20
LINKED_MAX = 200  # members, the first by name, whose links are looked up: some 10 ms


@dataclass(frozen=True)
class Campaign:
    """Clients that are judged together on one model; of many, the first `members` and `links`, by name.

    `size` counts all members, `links` says what two or more of the first `LINKED_MAX` have shown. `queries` are those
    of all together, `covered` the coverage buckets that they have had answers in, `reasons` what is most unlike honest
    queries, `fidelity` that of the best copy they could have by now.
    """

    model: str
    members: tuple[str, ...]
    size: int
    links: tuple[str, ...]
    p_value: float
    queries: int
    covered: int
    reasons: tuple[str, ...]
    fidelity: float | None = None


def list_campaigns(watch: Watch, clients: Iterable[str]) -> list[Campaign]:
    """The campaigns that some clients are in, the most suspicious first. Costs what explaining each client costs."""
    return campaigns_of(watch, {client: watch.explain(client) for client in clients})


def campaigns_of(watch: Watch, explained: Mapping[str, Iterable[Explanation]]) -> list[Campaign]:
    """The same, of clients that were explained already."""
    by_client = {(item.model, client): item for client, items in explained.items() for item in items}
    found: list[Campaign] = []
    seen: set[tuple[str, str]] = set()
    for (model, client), item in by_client.items():
        if len(item.group) < 2 or (model, client) in seen:
            continue
        seen.update((model, member) for member in item.group)
        members = [by_client[model, member] for member in item.group if (model, member) in by_client]
        links = watch.links_between(item.group[:LINKED_MAX])
        # the names of accounts with a bank, and of people's devices, are nobody's business here
        shown = [link for link in links if not link.startswith((DEVICE, PAYMENT))]
        shown += [kind[:-1] for kind in (DEVICE, PAYMENT) if any(link.startswith(kind) for link in links)]
        found.append(
            Campaign(
                model,
                item.group[:MEMBERS_SHOWN_MAX],
                len(item.group),
                tuple(shown[:LINKS_SHOWN_MAX]),
                item.campaign_p_value,
                sum(member.queries for member in members),
                item.group_buckets,
                # of a member who was explained by its group, if there is one
                next((other.reasons for other in members if other.campaign_p_value < other.p_value), item.reasons),
                item.fidelity,
            )
        )
    return sorted(found, key=lambda campaign: (campaign.p_value, -campaign.size, campaign.members))
