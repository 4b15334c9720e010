"""A table of networks of both families: which entries an address lies in, in microseconds, among a million. Pure.

Nested networks are cut into intervals that do not overlap, each with the narrowest network around it, which names the
next wider one: so a lookup is one bisection, and an entry that has expired gives way to a wider one.
"""

import socket
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError

NETWORKS_MAX = 1_000_000  # of one feed; 70 MB in arrays
PREFIX_MIN = {4: 8, 6: 16}  # a broader one is a mistake or an attack: it would put a prior on a whole region
_MAPPED = bytes(10) + b"\xff\xff"
_LOW = (1 << 64) - 1
NONE = -1

Network = tuple[int, int, int]  # family, first address as a number, bits of the prefix


def parse_network(text: str) -> Network:
    """A network or an address as it is written in feeds, without host bits. Raises FormatError on any other text."""
    address, slash, bits = text.partition("/")
    family, packed = _packed(address)
    width = 8 * len(packed)
    if not slash:
        prefix = width
    elif bits.isascii() and bits.isdigit() and len(bits) <= 3 and int(bits) <= width:
        prefix = int(bits)
    else:
        raise FormatError(f"{text[:64]!r} is no network such as 192.0.2.0/24 or 2001:db8::/32")
    first = int.from_bytes(packed)
    if first & ((1 << (width - prefix)) - 1):
        raise FormatError(f"{text[:64]!r} is no network: its address has bits beyond its prefix")
    if prefix < PREFIX_MIN[family]:
        raise FormatError(f"{text[:64]!r} is too large: at least /{PREFIX_MIN[family]} is expected")
    return family, first, prefix


def network_text(network: Network) -> str:
    """How a network is written."""
    family, first, prefix = network
    kind, octets = (socket.AF_INET, 4) if family == 4 else (socket.AF_INET6, 16)
    return f"{socket.inet_ntop(kind, first.to_bytes(octets))}/{prefix}"


Entry = tuple[Network, float, float]  # with an expiry (seconds since the epoch), and a share of a feed's weight


class Networks(Sequence[Entry]):
    """Entries as they are read, in columns: a million objects would be ten times as large, and take as long to free."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._families = array("B")
        self._high, self._low, self._prefixes = array("Q"), array("Q"), array("B")
        self._expires, self._shares = array("d"), array("d")
        for network, expires, share in entries:
            self.add(network, expires, share)

    def __len__(self) -> int:
        return len(self._families)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> "list[Entry]": ...
    def __getitem__(self, place: int | slice) -> "Entry | list[Entry]":
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        first = int(self._high[place]) << 64 | int(self._low[place])
        return (self._families[place], first, self._prefixes[place]), self._expires[place], self._shares[place]

    def add(self, network: Network, expires: float, share: float) -> None:
        """Take in one more."""
        family, first, prefix = network
        self._families.append(family)
        self._high.append(first >> 64)
        self._low.append(first & _LOW)
        self._prefixes.append(prefix)
        self._expires.append(expires)
        self._shares.append(share)

    def of(self, family: int) -> "_Columns":
        """Those of one family, in order."""
        mine = np.frombuffer(self._families, np.uint8) == family if self._families else np.zeros(0, np.bool_)
        found = _Columns()
        for name in ("high", "low", "prefixes", "expires", "shares"):
            column, kept = getattr(self, f"_{name}"), getattr(found, name)
            values = np.frombuffer(column, column.typecode) if len(column) else np.zeros(0, column.typecode)
            kept.frombytes(values[mine].astype(kept.typecode).tobytes())
        return found


class NetworkTable:
    """Networks with an expiry (seconds since the epoch) and a share of their feed's weight (0 to 1) each."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        """Take in `(network, expires, share)`. Raises FormatError beyond `NETWORKS_MAX`. The last of twins counts."""
        networks = entries if isinstance(entries, Networks) else Networks(islice(entries, NETWORKS_MAX + 1))
        if len(networks) > NETWORKS_MAX:
            raise FormatError(f"there are more than {NETWORKS_MAX} networks")
        self._families = {4: _Family(networks.of(4), 32), 6: _Family(networks.of(6), 128)}

    def __len__(self) -> int:
        return sum(len(family.prefixes) for family in self._families.values())

    @property
    def memory_bytes(self) -> int:
        """What the arrays take."""
        return sum(family.memory_bytes for family in self._families.values())

    def find(self, address: str, now: float) -> tuple[Network, float, float] | None:
        """The narrowest network around `address` that has not expired, its expiry and share; None if there is none.

        What is no address lies in no network: deciding whether an address can be believed is for the caller.
        """
        try:
            number, packed = _packed(address.partition("%")[0])
        except FormatError:
            return None
        family = self._families[number]
        entry = family.entry_at(int.from_bytes(packed))
        while entry != NONE and family.expires[entry] <= now:
            entry = family.wider[entry]
        if entry == NONE:
            return None
        return (number, family.first(entry), family.prefixes[entry]), family.expires[entry], family.shares[entry]


class _Columns:
    """The entries of one family, in columns."""

    def __init__(self) -> None:
        self.high, self.low = array("Q"), array("Q")
        self.prefixes, self.expires, self.shares = array("B"), array("d"), array("f")


class _Family:
    """The networks of one family: `cuts` are where another network begins to be the narrowest, `owners` which one."""

    def __init__(self, columns: _Columns, width: int) -> None:
        self._width = width
        order = _order(columns)
        self._high, self._low = _sorted(columns.high, order), _sorted(columns.low, order)
        self.prefixes, self.expires = _sorted(columns.prefixes, order), _sorted(columns.expires, order)
        self.shares = _sorted(columns.shares, order)
        self.wider = array("i")
        self._cuts_high, self._cuts_low, self._owners = array("Q"), array("Q"), array("i")
        inside: list[tuple[int, int]] = []  # the networks around the present one: last address, entry
        for entry, prefix in enumerate(self.prefixes):
            first = self.first(entry)
            for end in _left(inside, first):
                self._cut(end + 1, inside[-1][1] if inside else NONE)
            self.wider.append(inside[-1][1] if inside else NONE)
            self._cut(first, entry)
            inside.append((first | ((1 << (width - prefix)) - 1), entry))
        for end in _left(inside, 1 << width):
            self._cut(end + 1, inside[-1][1] if inside else NONE)

    @property
    def memory_bytes(self) -> int:
        arrays = (self._high, self._low, self.prefixes, self.expires, self.shares, self.wider)
        return sum(each.itemsize * len(each) for each in (*arrays, self._cuts_high, self._cuts_low, self._owners))

    def first(self, entry: int) -> int:
        return int(self._high[entry] << 64 | self._low[entry])

    def entry_at(self, address: int) -> int:
        if self._width == 32:
            place = bisect_right(self._cuts_low, address) - 1
        else:
            high = address >> 64
            place = bisect_right(self._cuts_high, high) - 1
            if place >= 0 and self._cuts_high[place] == high:
                # several cuts within one /64: few feeds name such, so this second search is seldom needed
                begin = bisect_left(self._cuts_high, high, 0, place + 1)
                place = bisect_right(self._cuts_low, address & _LOW, begin, place + 1) - 1
        return self._owners[place] if place >= 0 else NONE

    def _cut(self, at: int, owner: int) -> None:
        if at >> self._width:
            return  # beyond the last address
        high, low = at >> 64, at & _LOW
        if self._owners and self._cuts_high[-1] == high and self._cuts_low[-1] == low:
            self._owners[-1] = owner
            return
        self._cuts_high.append(high)
        self._cuts_low.append(low)
        self._owners.append(owner)


def _left(inside: list[tuple[int, int]], first: int) -> Iterator[int]:
    """Leave the networks that end before `first`; their last addresses."""
    while inside and inside[-1][0] < first:
        yield inside.pop()[0]


def _order(columns: _Columns) -> NDArray[np.intp]:
    """By first address, wider ones first; of twins the last alone."""
    high, low = np.frombuffer(columns.high, np.uint64), np.frombuffer(columns.low, np.uint64)
    prefixes = np.frombuffer(columns.prefixes, np.uint8)
    order = np.lexsort((np.arange(len(prefixes)), prefixes, low, high))
    if len(order) < 2:
        return order
    same = np.ones(len(order) - 1, np.bool_)
    for column in (high, low, prefixes):
        same &= column[order][1:] == column[order][:-1]
    kept: NDArray[np.intp] = order[np.append(~same, True)]
    return kept


def _sorted(column: "array[int] | array[float]", order: NDArray[np.intp]) -> "array":  # type: ignore[type-arg]
    found = array(column.typecode)
    found.frombytes(np.frombuffer(column, column.typecode)[order].tobytes())
    return found


def _packed(address: str) -> tuple[int, bytes]:
    """Family and bytes; an IPv4 address inside IPv6 is an IPv4 one. Raises FormatError."""
    try:
        if ":" not in address:
            return 4, socket.inet_pton(socket.AF_INET, address)
        packed = socket.inet_pton(socket.AF_INET6, address)
    except (OSError, ValueError):  # ValueError: a null character, or text that is no UTF-8
        raise FormatError(f"{address[:64]!r} is no address") from None
    return (4, packed[12:]) if packed.startswith(_MAPPED) else (6, packed)
