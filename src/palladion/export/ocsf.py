"""OCSF 1.9 events: API Activity (6003) of what clients and operators did, Detection Finding (2004) of what was noticed.

Profiles: `ai_operation` on 6003 (OCSF has it on no finding: there the model is a resource), `record_integrity` on both.
What OCSF has no word for stands under `unmapped`: the record itself, and where in which log it was proved to be.
"""

from hashlib import sha256
from types import MappingProxyType
from typing import Any

import msgspec

from palladion.clock import timestamp
from palladion.export.item import PRODUCT, VERSION, Item, Severity, Source
from palladion.watch.taxonomy import Reference, Table, reference

SCHEMA_VERSION = "1.9.0"
API_ACTIVITY, DETECTION_FINDING = 6003, 2004
CREATE, READ, UPDATE, DELETE, OTHER = 1, 2, 3, 4, 99  # of an API activity
NEW, CHANGED, CLOSED = 1, 2, 3  # of a finding
_SHA256, _HEX = 3, 1
_ADMIN, _SYSTEM, _SERVICE = 2, 3, 4
_FINDINGS = ("standing.", "incident.", "decoy.touched", "watch.drifted", "watch.newcomers")
_VERBS = MappingProxyType(
    {
        CREATE: "added created made issued protected sealed published given signed started recorded",
        READ: "opened exported tested measured delivered disclosed",
        UPDATE: "changed promoted canary rolled-back renewed rewrapped resealed rotated stamped decided imported "
        "ending calibrated restored set",
        DELETE: "revoked forgotten pruned retired ended",
    }
)
_ACTIVITY = MappingProxyType({verb: activity for activity, verbs in _VERBS.items() for verb in verbs.split()})
_ACTIVITY_NAMES = MappingProxyType({CREATE: "Create", READ: "Read", UPDATE: "Update", DELETE: "Delete"})
_SEVERITY_NAMES = MappingProxyType(
    {
        Severity.INFORMATIONAL: "Informational",
        Severity.LOW: "Low",
        Severity.MEDIUM: "Medium",
        Severity.HIGH: "High",
    }
)
_LENIENT = frozenset({"trusted", "watched"})  # standings in which a client gets its whole answers


def encode(item: Item, source: Source) -> bytes:
    """The event of an entry as one line of JSON, with the fingerprint of its own canonical form (RFC 8785)."""
    event = _finding(item, source) if item.record.kind.startswith(_FINDINGS) else _activity(item)
    event |= _common(item, source, event["class_uid"] * 100 + event["activity_id"])
    attestation = {
        "uid": f"{source.origin}/{item.number}",
        "chain_uid": source.origin,
        "authority_uid": source.authority,
    }
    event["attestation_list"] = [attestation]
    # over everything but the fingerprint itself, as the profile has it
    digest = sha256(msgspec.json.encode(event, order="sorted")).hexdigest()
    fingerprint = {"algorithm_id": _SHA256, "algorithm": "SHA-256", "encoding_id": _HEX, "value": digest}
    event["attestation_list"] = [{**attestation, "fingerprint": fingerprint}]
    return msgspec.json.encode(event, order="sorted")


def _common(item: Item, source: Source, type_uid: int) -> dict[str, Any]:
    record, profiles = item.record, ["record_integrity"]
    if type_uid // 100 == API_ACTIVITY and item.model[0] is not None:
        profiles.insert(0, "ai_operation")
    proved: dict[str, Any] = {"entry": item.number, "leaf_hash": item.leaf, "size": source.size, "root": source.root}
    if item.number < source.witnessed:
        proved["witnesses"] = list(source.witnesses)
    return {
        "type_uid": type_uid,
        "severity_id": int(item.severity),
        "severity": _SEVERITY_NAMES[item.severity],
        "time": item.milliseconds,
        "message": item.title,
        "metadata": {
            "version": SCHEMA_VERSION,
            "uid": f"{source.origin}/{item.number}",
            "original_event_uid": str(item.number),
            "original_time": timestamp(record.time),
            "event_code": record.kind,
            "log_name": source.origin,
            "sequence": item.number,
            "profiles": profiles,
            "product": {"name": PRODUCT, "vendor_name": PRODUCT, "version": VERSION},
        },
        "unmapped": {"log": proved, "record": msgspec.Raw(item.data), **_sign(item)},
    }


def _activity(item: Item) -> dict[str, Any]:
    record = item.record
    answered = record.kind.startswith("answer.")
    activity, verb = _activity_of(record.kind)
    # of a refusal, the gate writes the record and the client made the call
    caller = (item.client or record.actor if answered else record.actor) or "-"
    refused = record.kind in {"answer.refused", "answer.broken", "operator.refused"}
    operation = (item.detail("endpoint") or "predict") if answered else record.kind
    event: dict[str, Any] = {
        "category_uid": 6,
        "category_name": "Application Activity",
        "class_uid": API_ACTIVITY,
        "class_name": "API Activity",
        "activity_id": activity,
        "activity_name": verb,
        "actor": {"user": _user(caller, item)},
        "api": {"operation": operation, **({"service": {"name": item.route}} if item.route else {})},
        # the ledger knows no addresses
        "src_endpoint": {"uid": caller},
        "resources": [_resource(item)],
        "status_id": 2 if refused else 1,
        "status": "Failure" if refused else "Success",
    }
    name, version = item.model
    if name is not None:
        event["ai_model"] = {"name": name, "ai_provider": "Internal"}
        if version is not None:
            event["ai_model"]["version"] = str(version)
    reason, count = item.detail("reason"), item.count("requests")
    if reason:
        event["status_detail"] = reason
    if count:
        event["count"] = count
    return event


def _finding(item: Item, source: Source) -> dict[str, Any]:
    activity, status = _life(item)
    information: dict[str, Any] = {
        "uid": _finding_uid(item),
        "title": item.title,
        "types": [item.record.kind],
        "data_sources": ["ledger"],
    }
    text = item.detail("text") or item.detail("reason")
    if text:
        information["desc"] = text
    information |= _attacks(item, source.techniques)
    event: dict[str, Any] = {
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": DETECTION_FINDING,
        "class_name": "Detection Finding",
        "activity_id": activity,
        "activity_name": {NEW: "Create", CHANGED: "Update", CLOSED: "Close"}[activity],
        "finding_info": information,
        "is_alert": activity == NEW,
        "resources": [_resource(item)],
        "status_id": status,
        "status": {1: "New", 2: "In Progress", 4: "Resolved"}[status],
    }
    if item.client:
        event["evidences"] = [{"actor": {"user": _user(item.client, item)}}]
    return event


def _attacks(item: Item, table: Table) -> dict[str, Any]:
    """The techniques of a finding: those of ATLAS as attacks, OWASP's as a tag, since OCSF has no place for these."""
    found = [reference(id_, table) for id_ in item.techniques]
    attacks = [_attack(each, table) for each in found if each.source == "mitre-atlas"]
    tags: list[dict[str, Any]] = [{"name": "cause", "value": item.cause}] if item.cause else []
    owasp = [each.id for each in found if each.source == "owasp"]
    tags += [{"name": "owasp", "values": owasp}] if owasp else []
    return {**({"attacks": attacks} if attacks else {}), **({"tags": tags} if tags else {})}


def _attack(found: Reference, table: Table) -> dict[str, Any]:
    named = {"uid": found.id, "name": found.name, "src_url": found.url}
    parent = found.id.rpartition(".")[0]
    if "." not in parent:
        return {"version": table.version, "technique": named}
    above = {"uid": parent, **({"name": table.techniques[parent]} if parent in table.techniques else {})}
    return {"version": table.version, "technique": above, "sub_technique": named}


def _sign(item: Item) -> dict[str, Any]:
    """Of what is no finding to OCSF, as a refusal, what it is a sign of all the same."""
    return {"cause": item.cause, "techniques": list(item.techniques)} if item.cause else {}


def _life(item: Item) -> tuple[int, int]:
    """Activity and status of a finding: what is new, what goes on, what is over."""
    kind = item.record.kind
    if kind == "incident.closed":
        return CLOSED, 4
    if kind.startswith("incident.") and kind != "incident.opened":
        return CHANGED, 2
    if kind == "standing.changed":
        if item.standing in _LENIENT:
            return CLOSED, 4
        if item.detail("from") not in _LENIENT:
            return CHANGED, 2
    return NEW, 1


def _finding_uid(item: Item) -> str:
    """The same for all that belongs to one case, or to one client's lowered standing; else an entry is a finding."""
    record = item.record
    if record.kind.startswith("incident.") and record.subject:
        return record.subject
    if record.kind == "standing.changed":
        return f"standing:{record.subject}"
    return f"{record.kind}:{item.number}"


def _activity_of(kind: str) -> tuple[int, str]:
    if kind.startswith("answer."):
        return READ, _ACTIVITY_NAMES[READ]
    verb = kind.partition(".")[2].removeprefix("key-").removeprefix("identity-")
    activity = _ACTIVITY.get(verb, OTHER)
    # of another activity, the name is the producer's own
    return activity, _ACTIVITY_NAMES.get(activity, verb or kind)


def _user(text: str, item: Item) -> dict[str, Any]:
    if text == item.client:
        named = {"name": item.name} if item.name else {}
        return {"uid": text, "type_id": _SERVICE, "type": "Service", **named}
    if text == "gate":
        return {"uid": text, "type_id": _SYSTEM, "type": "System"}
    return {"uid": text, "type_id": _ADMIN, "type": "Admin"}


def _resource(item: Item) -> dict[str, Any]:
    name, version = item.model
    if name is None:
        return {"uid": item.record.subject or "-", "type": item.record.kind.partition(".")[0]}
    found = {"uid": item.record.subject, "name": name, "type": "ai_model"}
    return found if version is None else {**found, "version": str(version)}
