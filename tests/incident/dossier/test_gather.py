"""What a dossier says of a case, and that every word of it is proved by an entry or left to a person."""

import base64
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.incident.dossier.gather import Gathered, Wishes, gather
from palladion.incident.dossier.names import commitment_to
from palladion.ledger.checkpoint import parse_verifier_key
from palladion.ledger.proof import verify_proof
from palladion.model.digest import model_digest
from palladion.model.read import read_weights
from palladion.watch.features import SCORES
from tests.lifecycle.installations import ACTOR

from .stories import Story

NAMES = ("acme", "scoring", "batch", "partner")


def _gather(story: Story, wishes: Wishes, case: str | None = None) -> Gathered:
    made = story.made
    return gather(
        made.installation,
        case or story.case,
        wishes,
        gate=made.installation.open_gate_root(),
        publisher=made.owner.signer("publisher").public_key,
        actor=ACTOR,
    )


def test_every_shown_entry_is_proved_as_our_own_reader_says(gathered: Gathered) -> None:
    key = parse_verifier_key(gathered.dossier.log.key)
    shown = [item for item in gathered.dossier.evidence if not item.withheld]
    assert len(shown) > 15
    for item in shown:
        stem = f"evidence/ledger/entry-{item.entry}"
        proof, checkpoint = verify_proof(
            gathered.evidence[f"{stem}.tlog-proof"], gathered.evidence[f"{stem}.json"], key
        )
        assert (proof.index, checkpoint.size) == (item.entry, gathered.dossier.log.size)


def test_nobody_is_named_anywhere(gathered: Gathered) -> None:
    everything = b"".join([gathered.dossier.encode(), *gathered.evidence.values()]).decode("utf-8", "replace")
    assert [name for name in NAMES if name in everything] == []
    withheld = {item.kind for item in gathered.dossier.evidence if item.withheld}
    assert withheld == {"model.delivered", "incident.noted", "mark.tested", "incident.closed"}


def test_whoever_asks_for_names_gets_them_and_every_entry(story: Story) -> None:
    named = _gather(story, Wishes(named=True)).dossier
    assert not any(item.withheld for item in named.evidence)
    assert {account.name for account in named.accounts} == {"acme/scoring", "acme/batch"}
    assert "acme/scoring" in named.case.title
    assert "partner" in json.dumps([asdict(item) for item in named.comparison])


def test_what_was_withheld_is_opened_by_a_dossier_that_names_everybody(story: Story, gathered: Gathered) -> None:
    opened = {item.entry: item for item in _gather(story, Wishes(named=True)).dossier.evidence}
    withheld = [item for item in gathered.dossier.evidence if item.withheld]
    for item in withheld:
        shown = opened[item.entry]
        assert shown.opening is not None
        assert shown.leaf is not None
        assert item.commitment == commitment_to(bytes.fromhex(shown.opening), bytes.fromhex(shown.leaf))
    assert {item.entry for item in opened.values() if item.opening} == {item.entry for item in withheld}


def test_the_hash_of_a_withheld_entry_stands_nowhere_but_in_its_neighbours_proof(
    story: Story, gathered: Gathered
) -> None:
    """Whoever guesses the name in an entry could try it out."""
    opened = {item.entry: item for item in _gather(story, Wishes(named=True)).dossier.evidence}
    for item in [item for item in gathered.dossier.evidence if item.withheld]:
        leaf = bytes.fromhex(opened[item.entry].leaf or "")
        assert leaf.hex().encode() not in gathered.dossier.encode()
        holding = {name for name, data in gathered.evidence.items() if base64.b64encode(leaf) in data}
        # the last of an odd number of entries is a node of its own higher up
        assert item.entry == gathered.dossier.log.size - 1 or holding <= {
            f"evidence/ledger/entry-{item.entry ^ 1}.tlog-proof"
        }


def test_versions_stand_with_their_digests_parents_and_entries(gathered: Gathered) -> None:
    (model,) = gathered.dossier.models
    first, second = model.versions
    assert (model.name, first.parent, second.parent) == ("house", None, "house@1")
    assert first.entry is not None
    entry = json.loads(gathered.evidence[f"evidence/ledger/entry-{first.entry}.json"])
    assert entry["details"]["content"] == first.content
    assert entry["details"]["sealed"]["served"]["root"] == first.sealed["served"]
    assert [line.split()[0] for line in first.promoted] == ["promote"]


def test_commitments_precede_the_suspect(gathered: Gathered) -> None:
    rows = gathered.dossier.commitments
    assert {row.what.partition(":")[0] for row in rows} == {"content of the version", "ownership mark"}
    assert all(row.precedes for row in rows)
    entry = json.loads(gathered.evidence[f"evidence/ledger/entry-{rows[1].entry}.json"])
    assert rows[1].value == entry["details"]["marks"][0]["commitment"]


def test_the_suspect_in_custody_is_the_one_that_was_tested(gathered: Gathered, story: Story) -> None:
    (custody,) = gathered.dossier.custody
    assert custody.content == model_digest(read_weights(story.suspect)).hex()
    assert (custody.by, custody.place, custody.step) == ("J. Roe", "laboratory 2", "acquired")
    mine, copy, odd = gathered.dossier.comparison
    assert (mine.exhibit, copy.exhibit, odd.exhibit) == (True, True, False)
    assert mine.digest == custody.content
    assert "a finding" in mine.results[0]
    assert "named: recipient:" in copy.results[0]


def test_measures_stand_as_they_were_when_the_case_was_opened_and_now(gathered: Gathered) -> None:
    (control,) = gathered.dossier.controls
    assert (control["state_at_opening"], control["state"]) == ("in force", "ended")
    before = {measure.measure: measure.before for measure in gathered.dossier.measures}
    assert before["Ownership marks are put into models before they leave"]
    assert not before["Suspects are tested for marks"]
    assert gathered.dossier.gate is not None
    assert "mode enforce" in gathered.dossier.gate.routes[0]


def test_the_timeline_is_in_the_order_of_the_ledger(gathered: Gathered) -> None:
    timeline = gathered.dossier.timeline
    assert [event.entry for event in timeline] == sorted({event.entry for event in timeline})
    kinds = [event.kind for event in timeline]
    assert kinds.index("client.added") < kinds.index("answer.given") < kinds.index("incident.opened")
    assert kinds[-1] == "incident.closed"
    assert gathered.dossier.timeline_left_out == 0


def test_accounts_stand_with_what_they_asked(gathered: Gathered, story: Story) -> None:
    accounts = {account.pseudonym: account for account in gathered.dossier.accounts}
    first = accounts[story.accounts[0]]
    assert (first.answers, first.refused, first.keys, first.standing) == (160, 7, 1, "watched")
    assert first.reasons[0].startswith("trusted → watched: asks like a thief")
    assert first.name is None


def test_what_links_the_accounts_is_told_without_what_it_is(gathered: Gathered, story: Story) -> None:
    (row,) = gathered.dossier.links
    assert row.says == "accounts linked: 2 share a network; 2 share a means of payment"
    entry = json.loads(gathered.evidence[f"evidence/ledger/entry-{row.entry}.json"])
    assert entry["kind"] == "incident.opened"
    assert row.keyed == [f"{item['kind']} {item['keyed'][0]}" for item in entry["details"]["links"]]
    everything = gathered.dossier.encode() + b"".join(gathered.evidence.values())
    assert b"card-7" not in everything
    assert b"203.0.113" not in everything


def test_the_timeline_says_why_and_which_version_answered(gathered: Gathered) -> None:
    said = {event.kind: event.says for event in gathered.dossier.timeline}
    assert said["incident.opened"].startswith("a case about 2 accounts; by the queries of linked accounts together; ")
    assert all(f"({SCORES[name]})" in said["incident.opened"] for name in ("contrast", "repeats"))
    assert "campaign (AML.T0024.002, " in said["incident.opened"]
    version = gathered.dossier.models[0].versions[0]
    assert said["answer.given"].endswith(f"; by house@1, content {version.content} (entry {version.entry})")


def test_the_same_state_gives_the_same_document(story: Story, gathered: Gathered) -> None:
    again = _gather(story, Wishes())
    assert again.dossier.encode() == gathered.dossier.encode()
    assert dict(again.evidence) == dict(gathered.evidence)


def test_files_are_attached_under_names_that_are_safe(story: Story, tmp_path: Path) -> None:
    path = tmp_path / "..capturé 1.jsonl"
    path.write_bytes(b"captured")
    found = _gather(story, Wishes(attached=(path,)))
    assert found.evidence["evidence/attached/captur--1.jsonl"] == b"captured"
    assert found.dossier.attached[0]["bytes"] == 8


def test_attached_files_of_one_name_and_too_many_are_refused(story: Story, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_bytes(b"1")
    with pytest.raises(ConflictError, match="two attached files"):
        _gather(story, Wishes(attached=(tmp_path / "a" / "x", tmp_path / "b" / "x")))
    with pytest.raises(PalladionError, match="at most 64"):
        _gather(story, Wishes(attached=(tmp_path / "a" / "x",) * 65))


def test_a_case_or_a_model_that_does_not_exist_is_refused(story: Story) -> None:
    with pytest.raises(NotFoundError, match="no incident"):
        _gather(story, Wishes(), "ffffffff")
    with pytest.raises(NotFoundError, match="no model"):
        _gather(story, Wishes(models=("nothing",)))
