"""One entry of the ledger: who did what to what, when. Canonical JSON, so that one record has one hash."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from palladion import canonical
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import FormatError
from palladion.ledger.tiles import ENTRY_BYTES_MAX

KINDS = MappingProxyType(
    {
        "ledger.created": "The ledger begins; its first entry.",
        "ledger.contradicted": "A witness has seen another history of this ledger.",
        "ledger.pruned": "Old answers were let go; states before which entry, how many, and why.",
        "upstreams.probed": "Model servers were asked by nobody in particular; states which of them answered.",
        "ledger.exported": "Entries are exported; states which, in what form, where to, and whether with names.",
        "keys.created": "A root was made; states its public keys.",
        "keys.rewrapped": "A root was wrapped again: a passphrase or a host identity was changed.",
        "model.protected": "A version was scanned, sealed, signed and registered; states every digest.",
        "model.sealed": "A version was sealed as it is, without marks; states every digest, and to whom it opens.",
        "model.resealed": "A version's sealed files were made anew under other file keys; states their digests.",
        "model.rewrapped": "Who may open a version's sealed file was changed; states to whom it opens now.",
        "model.revoked": "A version, or one sealed file of it, must not be opened any more; states why.",
        "model.promoted": "A version became the one that is served.",
        "model.canary": "A version became the one that a share of the clients is served; states the share.",
        "model.rolled-back": "The version before is served again; states which canary ended, if one did, and why.",
        "model.opened": "A sealed version was opened into memory.",
        "release.created": "A release channel began.",
        "release.published": "A sealed file was listed in a release channel; states which.",
        "release.rotated": "A release channel's keys were replaced.",
        "bundle.signed": "Files were signed for programs without Palladion (OpenSSF Model Signing).",
        "signature.stamped": "An authority stamped the time of a sealed file's signature; states which authority.",
        "recipient.added": "A recipient was registered with a public key.",
        "recipient.revoked": "A recipient gets no new copies from now on.",
        "model.delivered": "A recipient got a sealed copy; states which file, and whether it is fingerprinted.",
        "federation.round": "Sites trained a round together; states who is in the sum, who dropped out, and ε so far.",
        "license.issued": "A licence was signed; states all of it.",
        "license.renewed": "A licence was signed again, until another day or for another machine; states all of it.",
        "license.revoked": "A licence went on the list of revocations; states why, and which list.",
        "mark.tested": "A suspect was tested for marks; states its digest, what was looked for, and what was found.",
        "text.key-given": "A key that marks a tenant's text was written to a file; states tenant, epoch and engine.",
        "mark.disclosed": "The mark's keys of some tensors were written to a file, to be shown; states which.",
        "salt.disclosed": "The salt of an answer's digests was written to a file, to be shown; states of which entry.",
        "client.added": "A client of the API was registered.",
        "client.revoked": "A client is let in no more, with whatever key.",
        "client.forgotten": "What was kept of a revoked client was erased; states what.",
        "bodies.expired": "Retained queries were erased because their days had passed; states how many, of how many.",
        "client.key-added": "A client got an API key; states its prefix, never the key.",
        "client.key-revoked": "An API key is accepted no more.",
        "client.key-ending": "An API key was given an end, because another takes its place; states prefix and end.",
        "client.identity-added": "A client may come in by a token, a SPIFFE id or a certificate; states which, keyed.",
        "client.identity-revoked": "An identity of a client is accepted no more.",
        "client.reseller": "A client asks for end users, who are judged as clients of their own, or no more.",
        "client.end-user-forgotten": "What was kept of an end user was erased; states what, and whose it is.",
        "clients.exported": "The clients were sealed into a file for another gate; states how many, and to whom.",
        "clients.imported": "Another gate's clients were taken over; states whose, as of when, and how much changed.",
        "client.changed": "What a client may ask was changed; states its scopes.",
        "standing.changed": "A client's standing was changed; states from, to, by what evidence, and of what a sign.",
        "standing.proposed": "A standing was asked for and not changed: a route observes, or a contract.",
        "watch.calibrated": "A calibration was made; states its digest, and from whose traffic.",
        "watch.measured": "A learning curve was measured; states its digest, and whose buckets it counts.",
        "redteam.run": "The red team attacked a version or a service; states leave, the report's digest and verdict.",
        "watch.drifted": "Traffic has left a calibration, which promises no rate any more; states what has moved.",
        "watch.newcomers": "Newcomers together are unlike honest ones; states how many, what moved, and who most.",
        "decoy.added": "A decoy was made: a key, queries or a file nobody honest uses; states its kind, never where.",
        "decoy.touched": "A decoy was used; states how often since the last such record, and by whom or from where.",
        "decoy.retired": "A decoy counts no more.",
        "storage.scanned": "Places were searched for careless copies; states what was found in numbers, never where.",
        "incident.opened": "A case was opened: by hand, for a suspension, or for a decoy; states why and for whom.",
        "incident.acknowledged": "Somebody took a case on.",
        "incident.escalated": "Nobody took a case in time; states the level that was told next, and its channels.",
        "incident.noted": "Something was noticed in a case, or a client appealed; states a digest of its words.",
        "incident.acted": "Something was done in a case; states what changed, and for whom.",
        "incident.closed": "A case was closed; states what was found, and which clients were honest.",
        "custody.recorded": "A suspect was acquired or handled for a case; states digests, by whom, where and when.",
        "dossier.written": "The dossier of a case was written; states the digest of its manifest.",
        "dossier.stamped": "An authority stamped the time of a dossier; states which, and the manifest's digest.",
        "measure.recorded": "A control that software cannot see is in force; states its owner, evidence and days.",
        "measure.ended": "Such a control is in force no more; states why.",
        "operator.added": "Somebody may look after this gate; states in which role, and by what identity.",
        "operator.changed": "An operator got another role; states both.",
        "operator.revoked": "An operator has no right any more.",
        "operator.signed-in": "An operator began a session; states in which role.",
        "operator.signed-out": "An operator ended a session.",
        "operator.refused": "Something that an operator asked for was not done; states what, and why.",
        "proposal.made": "An operator proposed a change that needs a second person; states which, and why.",
        "proposal.decided": "A proposal was approved, rejected or withdrawn; states whose it was, and why.",
        "approvals.changed": "Who approves, or how many have to, was changed; states all of it, signed by the owner.",
        "approval.requested": "Somebody asked for approval; states all of the request.",
        "approval.granted": "An approver agreed to a request; states the signed decision.",
        "approval.denied": "An approver denied a request; states the signed decision.",
        "approval.revoked": "A request was taken back, with its approvals; states why.",
        "approval.used": "What was approved is about to be done; states by whom it was approved.",
        "approval.refused": "A request was to be used and did not hold; states which check refused it.",
        "approval.broken-glass": "Something is about to be done without approvals; states what, and the reason given.",
        "approval.reviewed": "An approver reviewed broken glass; states the signed finding.",
        "approval.drilled": "A drill of approvals ended; states who approved it, and who did not.",
        "broker.released": "A file key is about to be released; states file, lease, machine and who agreed.",
        "broker.renewed": "A lease of a file key goes on; states which, for how long, and the machine.",
        "broker.refused": "A file key was asked for and refused; states which check refused it.",
        "broker.ended": "A lease was ended by an operator; whoever has it loses the key when it next asks.",
        "broker.started": "A key broker started.",
        "broker.stopped": "A key broker stopped.",
        "intel.refreshed": "A feed became another version, or could not; states which counts, until when, and why.",
        "intel.hit": "A feed lists something of a client; states feed, version, end, weight, and the indicator keyed.",
        "intel.told": "A case was written for others, or is sent to them; states what, and where to.",
        "gate.started": "The gate opened; states its routes, with version, mode and calibration of each.",
        "clock.set": "The machine's clock jumped, or is behind the ledger; states by how many seconds.",
        "gate.stopped": "The gate closed in good order.",
        "policy.changed": "A running gate took over another policy; states the digests of both, and what differs.",
        "answer.given": "A request was answered; states the version, what was disclosed, salted digests of both sides.",
        "answer.begun": "A streamed answer begins; states version and disclosure, and a salted digest of the request.",
        "answer.broken": "A streamed answer ended before its end; states why, and a salted digest of what had left.",
        "answers.reexecuted": "Answers were computed again; states how many are not the version's, and what it can be.",
        "answer.refused": "Requests of a client were refused; states why, and how many since the last such record.",
        "egress.refused": "A model was to leave, and a limit of the policy forbade it; states which, and whose.",
        "backup.made": "An encrypted backup was written; states its digest and to whom it is sealed.",
        "backup.restored": "This installation was restored from a backup.",
    }
)
TEXT_CHARACTERS_MAX = 512  # actor and subject are names; anything longer belongs into the details
RECORD_FIELDS = {"v", "time", "kind", "actor", "subject", "details"}
_KIND = re.compile(r"[a-z]+\.[a-z-]+")


@dataclass(frozen=True)
class Record:
    """What happened: `kind` (a key of `KINDS`), `actor` (who), `subject` (to what), and details that can be encoded."""

    kind: str
    time: datetime
    actor: str
    subject: str
    details: dict[str, Any] = field(default_factory=dict)


def document_of(record: Record) -> dict[str, Any]:
    """The JSON document that a record is in the ledger."""
    return {
        "v": 1,
        "time": timestamp(record.time),
        "kind": record.kind,
        "actor": record.actor,
        "subject": record.subject,
        "details": record.details,
    }


def encode_record(record: Record) -> bytes:
    """The entry's bytes. Raises ValueError on an unknown kind, or on a record that is too large."""
    if record.kind not in KINDS:
        raise ValueError(f"{record.kind!r} is no kind of record; add it to KINDS with a sentence")
    if len(record.actor) > TEXT_CHARACTERS_MAX or len(record.subject) > TEXT_CHARACTERS_MAX:
        raise ValueError(f"actor and subject of a record have at most {TEXT_CHARACTERS_MAX} characters")
    data = _encode(record)
    if len(data) > ENTRY_BYTES_MAX:
        raise ValueError(f"a record has {len(data)} bytes, at most {ENTRY_BYTES_MAX} fit")
    return data


def _encode(record: Record) -> bytes:
    moment = record.time
    plain = type(record.actor) is str and type(record.subject) is str and type(record.details) is dict
    if not plain or type(moment) is not datetime or moment.tzinfo is not UTC or not moment.microsecond:
        return canonical.encode(document_of(record))
    # nearly all: of the members only the details are still to be looked at, and the time is written as `timestamp` does
    canonical.check(record.details, depth=1)
    return canonical.unsafe_encode(
        {
            "v": 1,
            "time": moment,
            "kind": record.kind,
            "actor": record.actor,
            "subject": record.subject,
            "details": record.details,
        }
    )


def decode_record(data: bytes, *, what: str) -> Record:
    """The record of an entry's bytes; kinds of later releases are accepted. Raises FormatError, naming `what`."""
    document = canonical.decode(data, size_max=ENTRY_BYTES_MAX, what=what)
    if not isinstance(document, dict) or document.keys() != RECORD_FIELDS or document["v"] != 1:
        raise FormatError(f"{what} is not a record: {', '.join(sorted(RECORD_FIELDS))} were expected, version 1")
    texts = [document[name] for name in ("time", "kind", "actor", "subject")]
    if not all(isinstance(text, str) for text in texts) or not isinstance(document["details"], dict):
        raise FormatError(f"{what} is not a record: a field has the wrong type")
    if not _KIND.fullmatch(document["kind"]):
        raise FormatError(f"{what} has no kind of record: {document['kind'][:80]!r}")
    try:
        moment = parse_timestamp(document["time"])
    except ValueError:
        raise FormatError(f"{what} has no canonical time: {document['time'][:80]!r}") from None
    return Record(document["kind"], moment, document["actor"], document["subject"], document["details"])
