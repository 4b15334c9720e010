"""One pass over the ledger: what is kept, what is counted, what belongs to others."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from palladion import canonical
from palladion.errors import PalladionError, TamperError
from palladion.incident.dossier import history as module
from palladion.incident.dossier.history import RULES, read_history
from palladion.ledger.reader import LedgerReader

from .stories import Story


def _read(story: Story, case: str | None = None, accounts: tuple[str, ...] | None = None) -> module.History:
    accounts = story.accounts if accounts is None else accounts
    return read_history(story.made.installation.read_ledger(), case or story.case, frozenset(accounts))


def test_answers_are_counted_for_each_account_and_the_first_and_last_kept(story: Story) -> None:
    history = _read(story)
    tally = history.answers[story.accounts[0]]
    assert (tally.count, tally.units) == (20, 160)
    assert tally.first is not None
    assert tally.last is not None
    assert tally.first.record.details["request"] == f"{0:032x}"
    assert tally.last.record.details["request"] == f"{38:032x}"
    assert history.refusals[story.accounts[0]].units == 7
    assert story.accounts[1] not in history.refusals
    assert not any(entry.record.kind.startswith("answer.") for entry in history.entries)


def test_what_belongs_to_another_case_or_account_is_left_out(story: Story) -> None:
    other = _read(story, "0" * 16, ("client:" + "0" * 20,))
    assert not other.answers
    kinds = {entry.record.kind.partition(".")[0] for entry in other.entries}
    assert not kinds & {"incident", "custody", "standing", "client", "dossier"}
    assert {"model", "mark", "measure", "gate"} <= kinds


def test_measures_are_seen_with_their_first_and_last_record(story: Story) -> None:
    seen = {rule.measure: tally for rule, tally in zip(RULES, _read(story).tallies, strict=True) if tally.count}
    marks = seen["Ownership marks are put into models before they leave"]
    assert marks.count == 2
    assert marks.first is not None
    assert marks.first.record.subject == "house@1"
    assert "The gate limits callers under suspicion by itself" in seen
    assert "Encrypted backups are made" not in seen


def test_the_last_of_a_kind_before_a_moment(story: Story) -> None:
    history = _read(story)
    tested = list(history.of("mark.tested"))
    assert history.before("mark.tested", tested[0].record.time) is not None
    assert history.before("mark.tested", history.entries[0].record.time) is None


def test_progress_is_told(story: Story) -> None:
    told: list[tuple[str, int, int]] = []
    reader = story.made.installation.read_ledger()
    read_history(reader, story.case, frozenset(), lambda *step: told.append(step))
    assert told == [("read the ledger", 0, reader.size)]


def test_more_than_can_be_held_is_refused(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 3)
    with pytest.raises(PalladionError, match="more than 3 entries"):
        _read(story)


def test_what_an_account_did_to_a_decoy_is_kept_and_what_others_did_is_not(story: Story) -> None:
    """As the gate records it, in a ledger beside: the pseudonym stands in the details."""
    template = next(_read(story).of("gate.started"))
    kept = []
    for who in (story.accounts[0], "client:" + "0" * 20):
        record = replace(template.record, kind="decoy.touched", details={"touches": 1, "by": [{"client": who}]})
        history = module.History()
        data = canonical.encode(record.details)
        module._take(history, module.Entry(0, data, record), f"incident:{story.case}", frozenset(story.accounts))
        kept.append(len(history.entries))
    assert kept == [1, 0]


def test_an_entry_that_was_changed_is_not_read(story: Story, tmp_path: Path) -> None:
    installation = story.made.installation
    folder = tmp_path / "ledger"
    shutil.copytree(installation.paths.ledger, folder)
    bundle = max((folder / "tile" / "entries").rglob("*.p/*"), key=lambda path: int(path.name))
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    with pytest.raises(TamperError):
        read_history(LedgerReader(folder, installation.ledger_key()), story.case, frozenset())
