"""The text of a new `palladion.toml`: every setting with its reason, commented out."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from palladion.policy.section import Section
from palladion.policy.sections import Policy

EXAMPLE = "fraud"  # shown for a setting that has neither default nor an example of its own: a model's name


class Setting(msgspec.Struct, frozen=True):
    """One setting as the template and the docs show it."""

    section: str
    key: str
    default: Any
    description: str

    @property
    def name(self) -> str:
        """Section and key, as errors name it."""
        return f"{self.section}.{self.key}"


@cache
def section_types() -> Mapping[str, tuple[type[Section], bool]]:
    """The sections by name: what they hold, and whether there can be several (`[[name]]`)."""
    found = {}
    for name, hint in get_type_hints(Policy).items():
        several = get_origin(hint) is tuple
        found[name] = (get_args(hint)[0] if several else hint, several)
    return MappingProxyType(found)


@cache
def settings() -> tuple[Setting, ...]:
    """Every setting, in the order of the template."""
    found = []
    for section, (section_type, _) in section_types().items():
        fields = {field.name: field for field in msgspec.structs.fields(section_type)}
        for key, hint in get_type_hints(section_type, include_extras=True).items():
            meta = next(meta for meta in get_args(hint)[1:] if isinstance(meta, Meta))
            example = meta.examples[0] if meta.examples else EXAMPLE
            default = example if fields[key].required else fields[key].default
            found.append(Setting(section, key, default, meta.description or ""))
    return tuple(found)


def template(values: dict[str, Any] | None = None) -> str:
    """The text of a new `palladion.toml`: each setting with its reason, commented out unless in `values`."""
    values = values or {}
    unknown = set(values) - {setting.name for setting in settings()}
    if unknown:
        raise ValueError(f"no such setting: {', '.join(sorted(unknown))}")
    lines = ["# Policy of this Palladion installation. A line that starts with `#` and a key shows the default."]
    section = ""
    for setting in settings():
        if setting.section != section:
            section = setting.section
            section_type, several = section_types()[section]
            # a table that may stand several times has no default: it is shown, and not there
            lines += ["", f"# [[{section}]]" if several else f"[{section}]"]
            lines += _wrapped_comment((section_type.__doc__ or "").strip())
        lines.append("")
        lines += _wrapped_comment(setting.description)
        if setting.name in values:
            lines.append(f"{setting.key} = {toml_literal(values[setting.name])}")
        else:
            lines.append(f"# {setting.key} = {toml_literal(setting.default)}")
    return "\n".join(lines) + "\n"


def toml_string(text: str) -> str:
    """`text` as a TOML basic string, which takes JSON's escapes."""
    return msgspec.json.encode(text).decode()


def toml_literal(value: Any) -> str:
    """A TOML literal of the types that settings have."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, msgspec.Struct):
        value = {key: getattr(value, key) for key in value.__struct_fields__}
    if isinstance(value, dict):
        return f"{{ {toml_pairs(value)} }}"
    return "[" + ", ".join(toml_literal(item) for item in value) + "]"


def toml_pairs(table: dict[str, Any]) -> str:
    """The settings of a table on one line, as they stand in an inline table."""
    return ", ".join(f"{key} = {toml_literal(value)}" for key, value in table.items())


def _wrapped_comment(text: str) -> list[str]:
    lines, line = [], "#"
    for word in text.split():
        if len(line) + len(word) > 98:
            lines.append(line)
            line = "#"
        line += f" {word}"
    return [*lines, line]
