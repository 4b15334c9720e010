"""Registry and ledger are held against each other: what a crash tore and what was put back is named."""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import ConflictError, StorageError, TamperError
from palladion.ledger.record import Record
from palladion.ledger.writer import Ledger
from palladion.lifecycle import protect as life
from palladion.lifecycle import reconcile
from palladion.lifecycle.promote import promote, roll_back
from palladion.lifecycle.reconcile import History, recorded, registered, unrecorded, unregistered, unserved
from tests.models import onnx_bytes, write

from .installations import ACTOR, NOW, Made, make, served


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """An installation with version 1 of a model."""
    made = make(tmp_path)
    _protect(made, 1)
    return made


def _protect(made: Made, seed: int, name: str = "fraud") -> life.Protected:
    path = write(made.home.parent / f"{seed}.onnx", onnx_bytes(seed))
    return life.protect(made.installation, made.owner, path, name, actor=ACTOR)


def _recorded(made: Made) -> History:
    return recorded(made.installation, made.installation.open_gate_root())


def _registered(made: Made) -> History:
    with made.installation.open_registry() as registry, registry.read() as records:
        return registered(records)


def _differences(made: Made) -> list[str]:
    before, ledger = _registered(made), _recorded(made)
    found = [*unrecorded(before, ledger), *unregistered(ledger, before), *unserved(before, ledger, before)]
    return [difference.message for difference in found]


@contextmanager
def _crash_after_the_record(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    append = Ledger.append

    def crash(ledger: Ledger, records: Any) -> None:
        append(ledger, records)
        raise StorageError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", crash)
        yield


@pytest.mark.slow
def test_both_tell_the_same_life(made: Made) -> None:
    _protect(made, 2)
    promote(made.installation, "fraud", 2, actor=ACTOR)
    roll_back(made.installation, "fraud", actor=ACTOR)
    _protect(made, 2, "other-model")
    assert _differences(made) == []
    told = _recorded(made)
    assert told == _registered(made)
    assert told.served == {"fraud": 1, "other-model": 1}
    assert told.promotions["fraud", "rollback", 1] == 1


def test_what_is_not_published_yet_is_told_too(made: Made) -> None:
    with served(made.installation) as running:
        running.port.ledger.append([Record("model.promoted", NOW, ACTOR, "fraud@7")])
        assert _recorded(made).served == {"fraud": 7}


def test_a_record_among_thousands_of_others_is_found(made: Made) -> None:
    others = [Record("gate.stopped", NOW, ACTOR, f"host{number}") for number in range(600)]
    with made.installation.open_ledger(made.installation.open_gate_root()) as ledger:
        for record in ([], [Record("model.promoted", NOW, ACTOR, "fraud@3")], [], []):
            ledger.append([*others, *record])
    assert _recorded(made).served == {"fraud": 3}


def test_a_record_of_a_model_that_was_forged_is_not_believed(made: Made) -> None:
    for bundle in (made.installation.paths.ledger / "tile" / "entries").rglob("*"):
        if bundle.is_file():
            bundle.write_bytes(bundle.read_bytes().replace(b"fraud@1", b"fraud@9"))
    with pytest.raises(TamperError, match="was changed"):
        _recorded(made)


@pytest.mark.slow
def test_an_old_registry_gets_no_second_version_of_a_number(tmp_path: Path, made: Made) -> None:
    registry = made.installation.paths.registry
    shutil.copy(registry, tmp_path / "old")
    second = _protect(made, 2)
    promote(made.installation, "fraud", 2, actor=ACTOR)
    before = second.served.read_bytes()
    shutil.copy(tmp_path / "old", registry)
    assert _differences(made) == [
        "the ledger records fraud@2, and the registry does not list it",
        "the ledger's last word is that fraud@2 is served, the registry says fraud@1",
    ]
    with pytest.raises(ConflictError, match="the ledger records fraud@2, and the registry's next version of fraud"):
        _protect(made, 3)
    assert second.served.read_bytes() == before


@pytest.mark.slow
def test_an_older_registry_that_knows_no_such_model_gives_no_first_version(tmp_path: Path) -> None:
    made = make(tmp_path)
    shutil.copy(made.installation.paths.registry, tmp_path / "old")
    for seed in (1, 2):
        _protect(made, seed)
    shutil.copy(tmp_path / "old", made.installation.paths.registry)
    for seed in (1, 3):
        with pytest.raises(ConflictError, match="the ledger records fraud@2"):
            _protect(made, seed)


@pytest.mark.slow
def test_a_protect_that_was_interrupted_is_finished_with_the_same_file_alone(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _crash_after_the_record(monkeypatch), pytest.raises(StorageError, match="the power is gone"):
        _protect(made, 2)
    assert _differences(made) == ["the ledger records fraud@2, and the registry does not list it"]
    with pytest.raises(ConflictError, match="the ledger records fraud@2") as caught:
        _protect(made, 3)
    assert caught.value.hints[-1] == "if protect was interrupted at fraud@2, run it again with the same file first"
    assert _protect(made, 2).version.number == 2
    assert _differences(made) == []
    assert _protect(made, 3).version.number == 3


@pytest.mark.slow
def test_a_promotion_that_was_interrupted_is_told_until_it_is_finished(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    _protect(made, 2)
    with _crash_after_the_record(monkeypatch), pytest.raises(StorageError, match="the power is gone"):
        promote(made.installation, "fraud", 2, actor=ACTOR)
    assert _differences(made) == ["the ledger's last word is that fraud@2 is served, the registry says fraud@1"]
    promote(made.installation, "fraud", 2, actor=ACTOR)
    assert _differences(made) == []


@pytest.mark.slow
def test_a_ledger_that_was_cut_back_is_not_written_on(tmp_path: Path, made: Made) -> None:
    ledger = made.installation.paths.ledger
    shutil.copytree(ledger, tmp_path / "one version")
    _protect(made, 2)
    shutil.copytree(ledger, tmp_path / "not promoted")
    promote(made.installation, "fraud", 2, actor=ACTOR)

    shutil.rmtree(ledger)
    shutil.copytree(tmp_path / "not promoted", ledger)
    assert _differences(made) == [
        "the registry lists a promote to fraud@2 of which the ledger has no record",
        "the ledger's last word is that fraud@1 is served, the registry says fraud@2",
    ]
    shutil.rmtree(ledger)
    shutil.copytree(tmp_path / "one version", ledger)
    assert "the registry lists fraud@2, and the ledger has no record of it" in _differences(made)
    with pytest.raises(TamperError, match="the ledger has no record of it"):
        _protect(made, 3)


def _history(versions: dict[tuple[str, int], dict[str, Any]], served: dict[str, int] | None = None) -> History:
    return History(versions, Counter(), served or {})


def test_a_registry_that_says_other_things_of_a_version_is_told() -> None:
    ledger = _history({("fraud", 1): {"content": "aa"}})
    found = list(unrecorded(_history({("fraud", 1): {"content": "bb"}}), ledger))
    assert [item.message for item in found] == [
        "the registry says of fraud@1 other things than the ledger recorded",
    ]


def test_a_command_that_works_meanwhile_is_no_difference() -> None:
    old, new = _history({}, {"fraud": 1}), _history({("fraud", 2): {}}, {"fraud": 2})
    # the registry was read, then the command came, then the ledger was read and the registry again
    assert [*unrecorded(old, new), *unregistered(new, new), *unserved(old, new, new)] == []
    # or it came after the ledger was read
    assert [*unrecorded(old, old), *unregistered(old, new), *unserved(old, old, new)] == []


@pytest.mark.slow
def test_what_a_record_states_is_what_the_registry_lists(made: Made) -> None:
    version = _protect(made, 2).version
    assert reconcile.statement(version) == _recorded(made).versions["fraud", 2]
    assert reconcile.statement(version)["content"] == version.content_digest
