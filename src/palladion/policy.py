"""`palladion.toml` → a frozen `Policy`. Every setting is a field with its default, its limits and its reason.

The template that `palladion init` writes, docs/policy.md and the checks all come from the fields below.
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from palladion import files
from palladion.errors import PolicyError

POLICY_FILE = "palladion.toml"
POLICY_BYTES_MAX = 1024 * 1024  # a policy is a few KiB; the parser must not be fed a disk image

GIB = 1024**3


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the tables of `palladion.toml`: immutable, and unknown settings are refused."""


class InstallationPolicy(Section, frozen=True):
    """Where this installation keeps its state."""

    directory: Annotated[
        str,
        Meta(
            min_length=1,
            description="Folder of registry, ledger, keyrings and sealed files, relative to this file. "
            "It holds no plaintext model and no unwrapped key.",
        ),
    ] = ".palladion"


class KeysPolicy(Section, frozen=True):
    """Where keys lie, and who can recover them (docs/keys.md)."""

    owner: Annotated[
        str,
        Meta(
            description="Keyring file of the owner root; empty means keys/owner.json in the installation folder. "
            "Point it to a removable disk and take the disk away: a host that only serves needs no owner root."
        ),
    ] = ""
    host_identity: Annotated[
        str,
        Meta(
            min_length=1,
            description="Identity file that unlocks the gate root on this host. Keep it outside the installation "
            "folder, so that a copy of the folder opens nothing.",
        ),
    ] = "~/.config/palladion/host.identity"
    escrow: Annotated[
        tuple[str, ...],
        Meta(
            max_length=8,
            description="Public keys of escrow recipients (`palladion recipient new`), who can open what the owner "
            "can. Without one, a forgotten owner passphrase loses every original.",
        ),
    ] = ()


class TrustPolicy(Section, frozen=True):
    """Whose sealed files are accepted."""

    publishers: Annotated[
        tuple[str, ...],
        Meta(
            max_length=256,
            description="Public keys of publishers whose sealed files are accepted, besides this installation's own. "
            "A key that a file names for itself is never trusted.",
        ),
    ] = ()


class RegistryPolicy(Section, frozen=True):
    """Where models, versions, recipients, clients and incidents are listed."""

    url: Annotated[
        str,
        Meta(description="SQLAlchemy URL of the registry; empty means registry.sqlite in the installation folder."),
    ] = ""


class LedgerPolicy(Section, frozen=True):
    """The tamper-evident log."""

    origin: Annotated[
        str,
        Meta(
            max_length=200,
            pattern=r"^[^\s+]*$",
            description="Name of this log in its checkpoints: a domain and path without scheme that you control, for "
            "example ledger.example.com/fraud. Empty means a random name, made at init. It cannot change later.",
        ),
    ] = ""


class ScanPolicy(Section, frozen=True):
    """What `protect` agrees to read."""

    file_bytes_max: Annotated[
        int,
        Meta(
            ge=1,
            le=1024 * GIB,
            description="Largest model, all its files together, in bytes. A model is held in memory while it is "
            "protected.",
        ),
    ] = 16 * GIB
    operator_domains: Annotated[
        tuple[str, ...],
        Meta(
            max_length=64,
            description="ONNX operator domains that may occur. Operators of any other domain need a native library, "
            "which is code that the scanner cannot see into.",
        ),
    ] = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


class ProtectPolicy(Section, frozen=True):
    """What `protect` does with a model."""

    promote_first: Annotated[
        bool,
        Meta(
            description="Promote version 1 of a new model at once; later versions wait for `palladion model promote`."
        ),
    ] = True


class PassphrasePolicy(Section, frozen=True):
    """How expensive it is to guess a passphrase (Argon2id, RFC 9106)."""

    memory_mib: Annotated[
        int,
        Meta(
            ge=19,
            le=1024,
            description="Memory of one guess in MiB. RFC 9106 names 64 MiB with 3 passes as its setting for machines "
            "short of memory; 19 MiB is the least that OWASP accepts.",
        ),
    ] = 256
    passes: Annotated[int, Meta(ge=1, le=4, description="Passes over that memory.")] = 3


class Policy(Section, frozen=True):
    """All settings of an installation."""

    installation: InstallationPolicy = InstallationPolicy()
    keys: KeysPolicy = KeysPolicy()
    trust: TrustPolicy = TrustPolicy()
    registry: RegistryPolicy = RegistryPolicy()
    ledger: LedgerPolicy = LedgerPolicy()
    scan: ScanPolicy = ScanPolicy()
    protect: ProtectPolicy = ProtectPolicy()
    passphrase: PassphrasePolicy = PassphrasePolicy()


class Setting(msgspec.Struct, frozen=True):
    """One setting as the template and the docs show it."""

    section: str
    key: str
    type_name: str
    default: Any
    description: str

    @property
    def name(self) -> str:
        """Section and key, as errors name it."""
        return f"{self.section}.{self.key}"


def load_policy(path: Path) -> Policy:
    """Read and check the policy file. Raises PolicyError naming file, line, key, what was got and what was expected."""
    data = files.read_limited(path, size_max=POLICY_BYTES_MAX, what="the policy")
    return parse_policy(data, str(path))


def parse_policy(data: bytes, source: str) -> Policy:
    """The policy of TOML bytes; `source` is the file name for messages. Raises PolicyError."""
    try:
        text = data.decode("utf-8")
        document = tomllib.loads(text)
    except UnicodeDecodeError:
        raise PolicyError(f"{source} is not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PolicyError(f"{source}: not TOML: {str(error).lower()}") from None
    try:
        return msgspec.convert(document, Policy, strict=True)
    except msgspec.ValidationError as error:
        raise _located(str(error), text, document, source) from None


def settings() -> list[Setting]:
    """Every setting, in the order of the template."""
    found = []
    for section, section_type in get_type_hints(Policy).items():
        defaults = section_type()
        for key, hint in get_type_hints(section_type, include_extras=True).items():
            description = next(meta.description for meta in get_args(hint)[1:] if isinstance(meta, Meta))
            found.append(
                Setting(section, key, _type_name(get_args(hint)[0]), getattr(defaults, key), description or "")
            )
    return found


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
            summary = (get_type_hints(Policy)[section].__doc__ or "").strip()
            lines += ["", f"[{section}]", f"# {summary}"]
        lines.append("")
        lines += _wrapped_comment(setting.description)
        if setting.name in values:
            lines.append(f"{setting.key} = {_toml(values[setting.name])}")
        else:
            lines.append(f"# {setting.key} = {_toml(setting.default)}")
    return "\n".join(lines) + "\n"


def toml_string(text: str) -> str:
    """`text` as a TOML basic string, which takes JSON's escapes."""
    return msgspec.json.encode(text).decode()


def _located(message: str, text: str, document: dict[str, Any], source: str) -> PolicyError:
    """Give a validation error its line and what was got."""
    reason, _, path = message.partition(" - at `$")
    keys = re.findall(r"[^.\[\]`]+", re.sub(r"\[[^\]]*\]", "", path))
    unknown = re.search(r"unknown field `([^`]*)`", reason)
    hints = []
    if unknown:
        keys.append(unknown.group(1))
        section = keys[0] if len(keys) > 1 else None
        known = [s.key for s in settings() if s.section == section] if section else list(get_type_hints(Policy))
        reason = "unknown setting" if section else "unknown section"
        close = difflib.get_close_matches(unknown.group(1), known, n=1)
        hints.append(f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}")
    else:
        value: Any = document
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else value
        expected = reason.partition(", got ")[0].replace("`", "")
        reason = f"{expected[0].lower()}{expected[1:]}, got {value!r}"
    return PolicyError(f"{source}:{_line_of(text, keys)}: {'.'.join(keys)}: {reason}", *hints)


def _line_of(text: str, keys: list[str]) -> int:
    """The line on which the setting stands: tomllib does not keep it."""
    section, key = (keys[0], keys[1]) if len(keys) > 1 else (None, keys[0] if keys else "")
    current = None
    section_line = 1
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line)
        if header:
            current = header.group(1).strip("\"'")
            if current in (section, key):
                section_line = number
        dotted = re.match(r"\s*([\w.\-\"' ]+?)\s*=", line)
        if dotted:
            name = dotted.group(1).replace('"', "").replace("'", "").replace(" ", "")
            if (current == section and name == key) or (current is None and name in (f"{section}.{key}", section)):
                return number
    return section_line


def _type_name(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return "list of strings"
    return {"str": "string", "int": "integer", "bool": "true or false", "float": "number"}[hint.__name__]


def _wrapped_comment(text: str) -> list[str]:
    lines, line = [], "#"
    for word in text.split():
        if len(line) + len(word) > 98:
            lines.append(line)
            line = "#"
        line += f" {word}"
    return [*lines, line]


def _toml(value: Any) -> str:
    """A TOML literal of the types that settings have."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return toml_string(value)
    return "[" + ", ".join(_toml(item) for item in value) + "]"
