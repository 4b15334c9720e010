"""Two policies beside each other: what differs, by the names that people write, and the digest that names a policy."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from palladion.policy.section import Section
from palladion.policy.sections import Policy
from palladion.policy.template import toml_literal, toml_pairs

# What names a table of which there can be several: its place in the file means nothing.
NAMED_BY: Mapping[str, str] = {
    "route": "route", "issuer": "url", "contract": "client", "alert": "name", "feed": "name", "encrypted": "model",
}  # fmt: skip


class Change(NamedTuple):
    """One setting that differs; None where its table is not there."""

    name: str
    before: Any
    after: Any

    @property
    def setting(self) -> str:
        """Section and key, without which table it is; the section alone for a whole table."""
        section, _, rest = self.name.partition("[")
        return f"{section}.{rest.rpartition('].')[2]}" if "]." in rest else section


def told(value: Any) -> str:
    """What a change tells of one side, as people write it: a whole table by its settings, a text as it is."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return toml_pairs(value)
    return value if isinstance(value, str) else toml_literal(value)


def digest(policy: Policy) -> str:
    """What names a policy: SHA-256 of all its settings in hexadecimal, defaults included, comments not."""
    return sha256(msgspec.json.encode(policy, order="deterministic")).hexdigest()


def compare(before: Policy, after: Policy) -> list[Change]:
    """What differs, in the order of the template; tables of which there can be several are told apart by name."""
    changes: list[Change] = []
    for section in Policy.__struct_fields__:
        old, new = getattr(before, section), getattr(after, section)
        if old == new:
            continue
        if section not in NAMED_BY:
            changes += _settings(section, old, new)
            continue
        named_old, named_new = ({getattr(item, NAMED_BY[section]): item for item in items} for items in (old, new))
        for name in dict.fromkeys([*named_old, *named_new]):
            table = f"{section}[{name}]"
            was, will = named_old.get(name), named_new.get(name)
            if was is None or will is None:
                changes.append(Change(table, _shown(was), _shown(will)))
            else:
                changes += _settings(table, was, will)
    return changes


def same(one: Any, other: Any) -> bool:
    """Whether two values of a setting are the same; what is no number is, where the other is none either."""
    return bool(one == other) or (one != one and other != other)  # noqa: PLR0124


def same_table(one: Section, other: Section) -> bool:
    """Whether two tables say the same."""
    return not _settings("", one, other)


def _settings(table: str, before: Section, after: Section) -> list[Change]:
    return [
        Change(f"{table}.{key}", getattr(before, key), getattr(after, key))
        for key in before.__struct_fields__
        if not same(getattr(before, key), getattr(after, key))
    ]


def _shown(table: Section | None) -> dict[str, Any] | None:
    """What is set in a table, and not a default."""
    if table is None:
        return None
    fields = {field.name: field for field in msgspec.structs.fields(table)}
    return {
        key: getattr(table, key)
        for key in table.__struct_fields__
        if fields[key].required or not same(getattr(table, key), fields[key].default)
    }
