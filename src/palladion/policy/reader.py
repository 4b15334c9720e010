"""`palladion.toml` → a frozen `Policy`, or an error that names file, line, key, what was got and what was expected."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from palladion import files
from palladion.errors import PolicyError
from palladion.policy.sections import Policy
from palladion.policy.template import section_types

POLICY_FILE = "palladion.toml"
POLICY_BYTES_MAX = 1024 * 1024  # a policy is a few KiB; the parser must not be fed a disk image
# What people are told to write where a setting has to match a pattern, which is not for reading.
FORMS: Mapping[str, str] = {
    "alert.name": "a name of small letters, digits and - such as pager",
    "alert.url": "an address such as https://hooks.example.com/palladion, or tls://logs.example.com:6514",
    "attestation.chips": "a chip as palladion attest verify names it such as d49554ec717f4e5b",
    "attestation.forbid": "the name of a feature such as smt_enabled",
    "attestation.measurements": "a register and what it may hold, in small hexadecimal digits, such as mrtd=91eb2b44",
    "attestation.minimum_tcb": "a name and the least number such as snp=23",
    "attestation.name": "a name of small letters, digits and hyphens such as cvm",
    "attestation.need": "the name of a feature such as alias_check_complete",
    "broker.listen": "an address and a port such as 127.0.0.1:8714",
    "broker.release.attestation": "the name of an [[attestation]] such as cvm",
    "broker.release.model": "the name of a model such as fraud",
    "contract.client": "a client such as acme, or acme/web of an organisation",
    "encrypted.path": "a path of letters, digits and . _ ~ - such as /v1/encrypted/fraud",
    "feed.name": "a name of small letters, digits and hyphens such as tor-exits",
    "feed.url": "an address such as https://feeds.example.com/tor-exits.txt",
    "gate.grpc_listen": "an address and a port such as 127.0.0.1:8712",
    "gate.listen": "an address and a port such as 127.0.0.1:8710, or a socket such as unix:/run/palladion/gate.sock",
    "issuer.url": "an address such as https://login.example.com/acme",
    "ledger.key": "the key that palladion init wrote, such as ledger.example.com/fraud+1a2b3c4d+A…",
    "ledger.origin": "a name without spaces and + such as ledger.example.com/fraud",
    "ledger.witnesses": "a witness's key and its address, such as w.example/w1+1a2b3c4d+B… https://w.example",
    "oncall.link": "an address such as https://wiki.example.com/cases/{case}",
    "oncall.quiet_from": "a time of day such as 22:00",
    "oncall.quiet_until": "a time of day such as 07:00",
    "operations.listen": "an address and a port such as 127.0.0.1:8711",
    "operations.otlp": "an address such as http://127.0.0.1:4318",
    "operators.client_id": "a name without spaces such as palladion",
    "operators.issuer": "an address without # such as https://login.example.com/acme",
    "operators.scope": "scopes, the first of which is openid, such as openid",
    "proxy.address_header": "the name of a header in small letters such as x-real-ip",
    "proxy.asn_header": "the name of a header in small letters such as x-asn",
    "proxy.device_header": "the name of a header in small letters such as x-device",
    "proxy.payment_header": "the name of a header in small letters such as x-payment-token",
    "proxy.tls_header": "the name of a header in small letters such as x-ja4",
    "proxy.user_header": "the name of a header in small letters such as x-user",
    "route.calibration": f"a digest in hexadecimal such as {32 * '0f'}",
    "route.extra_fields": "names of fields in small letters such as top_k",
    "route.fixed.path": "a path such as $.parameters.kind",
    "route.inputs.path": "a path such as $.instances[*]",
    "route.outputs.path": "a path such as $.predictions[*]",
    "route.path": "a path of letters, digits and . _ ~ - such as /v1/score",
    "route.upstream": "an address such as http://127.0.0.1:8000 or unix:/run/model.sock",
    "route.upstream_path": "a path such as /predict, without spaces and #",
}
_STEP = re.compile(r"\.([^.\[\]`]+)|\[(\d+)\]")


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
    except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
        raise PolicyError(f"{source}: not TOML: {str(error).lower()}") from None
    try:
        return msgspec.convert(document, Policy, strict=True)
    except msgspec.ValidationError as error:
        raise _located(str(error), text, document, source) from None


def _located(message: str, text: str, document: dict[str, Any], source: str) -> PolicyError:
    """Give a validation error its line and what was got."""
    reason, _, path = message.partition(" - at `$")
    steps: list[str | int] = [int(number) if number else name for name, number in _STEP.findall(path.rstrip("`"))]
    keys = [step for step in steps if isinstance(step, str)]
    several = len(steps) > 1 and isinstance(steps[1], int) and section_types().get(str(steps[0]), (None, False))[1]
    index = int(steps[1]) if several else 0
    unknown = re.search(r"unknown field `([^`]*)`", reason)
    hints = []
    if unknown:
        keys.append(unknown.group(1))
        known = _known(keys[:-1])
        reason = "unknown setting" if len(keys) > 1 else "unknown section"
        close = difflib.get_close_matches(unknown.group(1), known, n=1)
        hints.append(f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}")
    elif reason.startswith("Object missing"):
        reason = f"it has no {reason.rpartition(' ')[2].strip('`')}, which is required"
    else:
        value: Any = document
        for step in steps:
            if isinstance(value, dict):
                value = value.get(step, value)
            elif isinstance(step, int) and isinstance(value, list) and value and isinstance(value[0], dict):
                value = value[step]
        reason = f"{_expected(reason, keys)}, got {value!r}"
    return PolicyError(f"{source}:{_line_of(text, keys, index)}: {'.'.join(keys)}: {reason}", *hints)


def _expected(reason: str, keys: list[str]) -> str:
    """What was expected, in words: neither the names of an enum nor a pattern say it by themselves."""
    if reason.startswith("Invalid enum value"):
        values = [repr(value) if value == "" else value for value in _choices(keys)]
        return f"expected {' or '.join([', '.join(values[:-1]), values[-1]]) if len(values) > 1 else values[0]}"
    if " matching regex " in reason:
        form = FORMS.get(".".join(keys))
        if form is not None:
            return f"expected {form}"
    expected = reason.partition(", got ")[0].replace("`", "")
    return f"{expected[0].lower()}{expected[1:]}"


def _choices(keys: list[str]) -> list[str]:
    """What may stand at `keys`, which lead to a Literal."""
    hint: Any = get_type_hints(_table(keys[:-1]))[keys[-1]]
    while get_origin(hint) is not Literal:
        hint = get_args(hint)[0]  # a list of them
    return list(get_args(hint))


def _known(keys: list[str]) -> list[str]:
    """What may stand in the table to which `keys` lead."""
    if not keys:
        return list(section_types())
    return list(_table(keys).__struct_fields__)


def _table(keys: list[str]) -> Any:
    """The table to which `keys` lead."""
    table: Any = section_types()[keys[0]][0]
    for key in keys[1:]:
        # a table within one stands there as itself, or as tuple[Table, ...] where there can be several
        hint = get_type_hints(table)[key]
        table = next(iter(get_args(hint)), hint)
    return table


def _line_of(text: str, keys: list[str], index: int) -> int:
    """The line on which the setting stands, in the table number `index` of that name: tomllib does not keep it."""
    section, key = (keys[0], keys[1]) if len(keys) > 1 else (None, keys[0] if keys else "")
    current = None
    section_line, tables = 1, -1
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line)
        if header:
            current = header.group(1).strip("\"'")
            if current in (section, key):
                tables += 1
                if tables <= index:
                    section_line = number
        dotted = re.match(r"\s*([\w.\-\"' ]+?)\s*=", line)
        if dotted:
            name = dotted.group(1).replace('"', "").replace("'", "").replace(" ", "")
            here = current == section and name == key and max(tables, 0) == index
            if here or (current is None and name in (f"{section}.{key}", section)):
                return number
    return section_line
