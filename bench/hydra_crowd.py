"""What the accounts of a campaign, and honest ones beside it, show of themselves: organisations and tokens.

How often honest accounts share something is made up here, and printed by `bench.hydra`; no real service told us.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from palladion.watch.links import ADDRESS, DEVICE, PAYMENT, TLS, Shown

TOKEN_ACCOUNTS = 20  # of the ring show one token, at most
KINDS = (PAYMENT, DEVICE, TLS, ADDRESS)
# Of honest accounts: those with colleagues (2 to 10), who sit at one address; of the others, those at a network with
# strangers, half of these at one with more than `TOKEN_ACCOUNTS`; of colleagues, those at such a network as well; those
# who share a device with one other, and those of whose program and neighbourhood one to four others are.
COLLEAGUES, SHARED_NETWORK, AT_HOME, SHARED_DEVICE, NEIGHBOURS = 0.30, 0.25, 0.05, 0.02, 0.05
CROWD_MAX = 500
ASTRAY = 0.001  # of the ring, at a network of honest accounts: some home whose owner lets strangers through


@dataclass(frozen=True)
class Account:
    """Its id, its organisation, whether it is of the ring and linked with it, and what it shows with every request."""

    name: str
    organisation: str
    ring: bool
    linked: bool
    shown: tuple[Shown, ...]


def rates() -> str:
    """How often honest accounts share something, in words."""
    return (
        f"of honest ones {COLLEAGUES:.0%} have 1 to 9 colleagues at one address, {SHARED_NETWORK:.0%} of others are "
        f"at a network with strangers, half of these with more than {TOKEN_ACCOUNTS}, {AT_HOME:.0%} of colleagues too; "
        f"{SHARED_DEVICE:.0%} share a device, {NEIGHBOURS:.0%} program, neighbourhood and hour"
    )


def make_crowd(
    ring: int,
    honest: int,
    generator: np.random.Generator,
    *,
    rate: float,
    organisations: bool = False,
    per_token: int = TOKEN_ACCOUNTS,
    astray: float = ASTRAY,
    roaming: int = 0,
) -> list[Account]:
    """The ring first. Each of its accounts has a token of each kind with probability `rate`.

    `organisations` are a kind too, where that is said. `roaming` is from how many further networks honest accounts ask,
    each with strangers, whoever their colleagues are.
    """
    own = [f"r{index}" for index in range(ring)]
    others = [f"h{index}" for index in range(honest)]
    shown: dict[str, list[Shown]] = {name: [] for name in (*own, *others)}
    linked: set[str] = set()
    places = dict(zip((*own, *others), (*own, *others), strict=True))  # organisations
    for kind in KINDS:
        holders = [name for name in own if generator.random() < rate]
        for number, part in enumerate(_dealt(holders, per_token, generator)):
            for name in part:
                shown[name].append(Shown(kind, _address(1, number) if kind == ADDRESS else f"ring-{number}"))
                linked.add(name)
    if organisations:
        holders = [name for name in own if generator.random() < rate]
        for number, part in enumerate(_dealt(holders, per_token, generator)):
            places |= dict.fromkeys(part, f"ring-{number}")
            linked.update(part)
    colleagues = _some(others, COLLEAGUES, generator)
    for number, part in enumerate(_groups(colleagues, 2, 10, generator)):
        places |= dict.fromkeys(part, f"company-{number}")
        _show(shown, part, Shown(ADDRESS, _address(2, number)))
    others_alone = sorted(set(others) - set(colleagues))
    at_networks = [*_some(others_alone, SHARED_NETWORK, generator), *_some(colleagues, AT_HOME, generator)]
    at_networks = [at_networks[index] for index in generator.permutation(len(at_networks))]
    for number, part in enumerate(_groups(_some(others, SHARED_DEVICE, generator), 2, 2, generator)):
        _show(shown, part, Shown(DEVICE, f"device-{number}"))
    for number, part in enumerate(_groups(_some(others, NEIGHBOURS, generator), 2, 5, generator)):
        _show(shown, part, Shown(TLS, f"program 198.51.{number}.0/24 0"))
    shared: list[Shown] = []
    for place in range(1 + roaming):
        few = at_networks if place == 0 else _some(others, SHARED_NETWORK, generator)
        small = _groups(few[: len(few) // 2], 2, TOKEN_ACCOUNTS, generator)
        large = _groups(few[len(few) // 2 :], TOKEN_ACCOUNTS + 1, CROWD_MAX, generator)
        for number, part in enumerate((*small, *large)):
            token = Shown(ADDRESS, _address(3 + place, number))
            shared.append(token)
            _show(shown, part, token)
    for name in _some(own, astray, generator):
        shown[name].append(shared[int(generator.integers(len(shared)))])
    for number, found in enumerate(shown.values()):
        if all(token.kind != ADDRESS for token in found):
            found.append(Shown(ADDRESS, _address(10, number)))
    return [
        Account(name, places[name], name.startswith("r"), name in linked, tuple(found)) for name, found in shown.items()
    ]


def _show(shown: dict[str, list[Shown]], names: Sequence[str], token: Shown) -> None:
    for name in names:
        shown[name].append(token)


def _some(names: Sequence[str], share: float, generator: np.random.Generator) -> list[str]:
    """About that share of the names, in random order."""
    chosen = [name for name in names if generator.random() < share]
    return [chosen[index] for index in generator.permutation(len(chosen))]


def _dealt(names: Sequence[str], size: int, generator: np.random.Generator) -> Iterator[list[str]]:
    order = [names[index] for index in generator.permutation(len(names))]
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _groups(names: list[str], least: int, most: int, generator: np.random.Generator) -> list[list[str]]:
    """Cut into parts of sizes that are even on a scale of logarithms."""
    found: list[list[str]] = []
    start = 0
    while start < len(names):
        size = round(float(np.exp(generator.uniform(np.log(least), np.log(most + 0.49)))))
        found.append(names[start : start + size])
        start += size
    return found


def _address(block: int, number: int) -> str:
    return f"{block}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
