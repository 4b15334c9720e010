"""A campaign as a STIX 2.1 bundle, without anything of customers: no names, no pseudonyms, no queries. Pure.

Ids are UUIDv5 of what they stand for and all times are the case's, so that one case always gives the same bytes.
Networks are in it only where a person names them; queries only as a signature (`sketch`), which needs an extension,
since no standard has one.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from palladion.clock import timestamp
from palladion.intel.formats import EXTENSION
from palladion.intel.networks import Network, network_text
from palladion.intel.sketch import NAME, Sketch
from palladion.watch.taxonomy import Reference

Tlp = Literal["clear", "green", "amber", "red"]
NETWORKS_SHOWN_MAX = 1000
COUNT_MAX = 999_999_999  # of a sighting (STIX 2.1 §5.2)
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:palladion:stix")
# Fixed by STIX 2.1 §7.2.1.4, which knows TLP 1.0: what is called clear today is white there
_TLP: Mapping[Tlp, tuple[str, str]] = {
    "clear": ("white", "613f2e26-407d-48c7-9eca-b8e91df99dc9"),
    "green": ("green", "34098fce-860f-48ae-8e50-ebd3cc5e41da"),
    "amber": ("amber", "f88d31f6-486f-44da-b317-01333bde0b82"),
    "red": ("red", "5e57c739-391a-4eb3-b6be-7d15ca92d5ed"),
}
_EPOCH = "2026-01-01T00:00:00.000Z"  # of what is the same in every bundle
_SCHEMA = "https://github.com/palladion/palladion/blob/main/docs/threat_intelligence.md#a-signature-of-queries"
_MITIGATIONS = {
    "AML.M0004": ("Restrict Number of AI Model Queries", "Limit queries in what they teach, across accounts."),
    "AML.M0002": ("Passive AI Output Obfuscation", "Answer suspects with less: fewer digits, fewer classes."),
}


@dataclass(frozen=True)
class CampaignFacts:
    """What a case tells others. `name` is its id or the beginning of it; counts and times are of all its accounts."""

    case: str
    reporter: str
    opened: datetime
    updated: datetime
    first_seen: datetime
    last_seen: datetime
    accounts: int
    answers: int
    references: Sequence[Reference]
    networks: Sequence[Network] = ()
    network_days: int = 14
    sketch: Sketch | None = None
    marking: Tlp = "amber"
    mitigations: Sequence[str] = field(default=tuple(_MITIGATIONS))


def campaign_bundle(facts: CampaignFacts) -> bytes:
    """The bundle's bytes. Raises ValueError on too many networks, or times in the wrong order."""
    if len(facts.networks) > NETWORKS_SHOWN_MAX:
        raise ValueError(f"{len(facts.networks)} networks in one bundle, at most {NETWORKS_SHOWN_MAX} are allowed")
    if facts.last_seen < facts.first_seen or facts.updated < facts.opened:
        raise ValueError("a case ends after it began")
    made = _Maker(facts)
    campaign = made.campaign()
    indicators = made.indicators()
    patterns = [made.attack_pattern(each) for each in facts.references if each.source == "mitre-atlas"]
    actions = [made.course_of_action(id_) for id_ in facts.mitigations]
    relations = [made.relation(campaign, "uses", pattern) for pattern in patterns]
    relations += [made.relation(indicator, "indicates", campaign) for indicator in indicators]
    relations += [made.relation(action, "mitigates", pattern) for action in actions for pattern in patterns[:1]]
    extension = made.extension() if facts.sketch is not None else []
    objects = [
        *(made.marking(), made.identity(), *extension, campaign, *patterns, *indicators, *actions, *relations),
        made.sighting(campaign),
    ]
    document = {"type": "bundle", "id": _id("bundle", made.seed), "objects": objects}
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2) + b"\n"


class _Maker:
    """Makes the objects of one bundle."""

    def __init__(self, facts: CampaignFacts) -> None:
        self._facts = facts
        self.seed = f"{facts.reporter} {facts.case}"
        self._reporter = _id("identity", f"reporter {facts.reporter}")
        tlp, uid = _TLP[facts.marking]
        self._marking = {
            "type": "marking-definition",
            "spec_version": "2.1",
            "id": f"marking-definition--{uid}",
            "created": "2017-01-20T00:00:00.000Z",
            "definition_type": "tlp",
            "name": f"TLP:{tlp.upper()}",
            "definition": {"tlp": tlp},
        }

    def marking(self) -> dict[str, Any]:
        return self._marking

    def identity(self) -> dict[str, Any]:
        return {
            "type": "identity",
            "spec_version": "2.1",
            "id": self._reporter,
            "created": _EPOCH,
            "modified": _EPOCH,
            "name": self._facts.reporter,
            "identity_class": "organization",
        }

    def campaign(self) -> dict[str, Any]:
        facts = self._facts
        return self._object("campaign", f"campaign {self.seed}") | {
            "name": f"Model extraction {facts.case[:8]}",
            "description": f"{facts.accounts} accounts acted as one and were given {facts.answers} answers.",
            "first_seen": _time(facts.first_seen),
            "last_seen": _time(facts.last_seen),
            "objective": "A copy of a model that is served behind an interface",
        }

    def attack_pattern(self, reference: Reference) -> dict[str, Any]:
        # the same for everybody who names this technique, whatever case it is in
        return self._shared("attack-pattern", f"{reference.source} {reference.id}", reference.name) | {
            "external_references": [
                {"source_name": reference.source, "external_id": reference.id, "url": reference.url}
            ]
        }

    def course_of_action(self, id_: str) -> dict[str, Any]:
        name, sentence = _MITIGATIONS[id_]
        return self._shared("course-of-action", f"mitre-atlas {id_}", name) | {
            "description": sentence,
            "external_references": [
                {
                    "source_name": "mitre-atlas",
                    "external_id": id_,
                    "url": f"https://atlas.mitre.org/mitigations/{id_}",
                }
            ],
        }

    def indicators(self) -> list[dict[str, Any]]:
        facts = self._facts
        found = []
        for network in sorted(set(facts.networks)):
            family = "ipv4-addr" if network[0] == 4 else "ipv6-addr"
            text = network_text(network)
            indicator = self._object("indicator", f"network {self.seed} {text}") | {
                "name": f"Network of {facts.case[:8]}",
                "indicator_types": ["anomalous-activity"],
                "pattern": f"[{family}:value = '{text}']",
                "pattern_type": "stix",
                "pattern_version": "2.1",
                "valid_from": _time(facts.first_seen),
                "valid_until": _time(facts.last_seen + timedelta(days=facts.network_days)),
                "confidence": 50,
            }
            found.append(indicator)
        if facts.sketch is not None:
            found.append(self._signature(facts.sketch))
        return found

    def _signature(self, sketch: Sketch) -> dict[str, Any]:
        facts = self._facts
        salted = {"salt": sketch.salt} if sketch.salt else {}
        signature = {
            "extension_type": "property-extension",
            "algorithm": NAME,
            "sketch": sketch.text(),
            "size": sketch.size,
        }
        return self._object("indicator", f"signature {self.seed} {sketch.salt}") | {
            "name": f"Queries of {facts.case[:8]}",
            "indicator_types": ["malicious-activity"],
            "pattern": f"{NAME}:{sketch.text()}",
            "pattern_type": f"palladion-{NAME}",
            "valid_from": _time(facts.first_seen),
            "confidence": 80,
            "extensions": {EXTENSION: signature | salted},
        }

    def extension(self) -> list[dict[str, Any]]:
        author = self._shared("identity", "palladion", "Palladion") | {"identity_class": "system"}
        definition = {
            "type": "extension-definition",
            "spec_version": "2.1",
            "id": EXTENSION,
            "created": _EPOCH,
            "modified": _EPOCH,
            "created_by_ref": author["id"],
            "name": "Signature of a set of queries to a model",
            "description": "A MinHash by which two sets of queries can be compared without showing a query.",
            "schema": _SCHEMA,
            "version": "1.0.0",
            "extension_types": ["property-extension"],
        }
        return [author, definition]

    def sighting(self, campaign: Mapping[str, Any]) -> dict[str, Any]:
        facts = self._facts
        return self._object("sighting", f"sighting {self.seed}") | {
            "sighting_of_ref": campaign["id"],
            "where_sighted_refs": [self._reporter],
            "first_seen": _time(facts.first_seen),
            "last_seen": _time(facts.last_seen),
            "count": min(facts.answers, COUNT_MAX),
        }

    def relation(self, source: Mapping[str, Any], verb: str, target: Mapping[str, Any]) -> dict[str, Any]:
        return self._object("relationship", f"{source['id']} {verb} {target['id']}") | {
            "relationship_type": verb,
            "source_ref": source["id"],
            "target_ref": target["id"],
        }

    def _object(self, kind: str, seed: str) -> dict[str, Any]:
        return {
            "type": kind,
            "spec_version": "2.1",
            "id": _id(kind, seed),
            "created_by_ref": self._reporter,
            "created": _time(self._facts.opened),
            "modified": _time(self._facts.updated),
            "object_marking_refs": [self._marking["id"]],
        }

    def _shared(self, kind: str, seed: str, name: str) -> dict[str, Any]:
        """An object that is the same in everybody's bundle."""
        return {
            "type": kind,
            "spec_version": "2.1",
            "id": _id(kind, seed),
            "created": _EPOCH,
            "modified": _EPOCH,
            "name": name,
        }


def _id(kind: str, seed: str) -> str:
    return f"{kind}--{uuid.uuid5(NAMESPACE, f'{kind} {seed}')}"


def _time(moment: datetime) -> str:
    return f"{timestamp(moment)[:-4]}Z"  # milliseconds, as most readers have them
