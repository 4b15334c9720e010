"""Versions: numbers without gaps, whoever writes; and nothing about them ever changes."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from palladion.clock import ManualClock, SystemClock
from palladion.errors import ConflictError, FormatError, NotFoundError, PalladionError
from palladion.registry import Registry, SealedFile, SignedPrivacy, Version, tables
from tests.registry.factories import add_model, digest, new_version, sealed, tensor


def test_a_version_is_kept_as_it_was_added(registry: Registry, clock: ManualClock) -> None:
    marks = ({"kind": "mark", "key": "00ff", "layers": [1, 2]},)
    new = new_version(original=sealed("digits/1.original.sealed"), marks=marks, note="first try")
    with registry.write() as records:
        add_model(records)
        records.versions.add(new)
    with registry.read() as records:
        found = records.versions.get("digits", 1)
        tensors = records.versions.tensors("digits", 1)
    assert found == Version(
        model="digits",
        number=1,
        parent=None,
        content_digest=digest("first"),
        graph_digest=digest("graph"),
        format="onnx",
        publisher="ab" * 8,
        marks=marks,
        note="first try",
        created=clock.now(),
        served=sealed(),
        original=sealed("digits/1.original.sealed"),
    )
    assert tensors == [tensor("bias"), tensor("weight", "first")]


def test_numbers_count_per_model_from_one(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a", "b", "c")
        add_model(records, "fraud", "d")
        assert [version.number for version in records.versions.all("digits")] == [1, 2, 3]
        assert [version.number for version in records.versions.all("fraud")] == [1]
        assert records.versions.next_number("digits") == 4


def test_the_newest_version_is_the_one_with_the_highest_number(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records)
        assert records.versions.newest("digits") is None
        records.versions.add(new_version("a"))
        newest = records.versions.add(new_version("b"))
        assert records.versions.newest("digits") == newest


def test_a_version_that_is_rolled_back_leaves_no_gap(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
    with pytest.raises(NotFoundError), registry.write() as records:
        records.promotions.promote("digits", records.versions.add(new_version("b")).number + 1, actor="ada")
    with registry.write() as records:
        assert records.versions.add(new_version("c")).number == 2


def test_a_number_that_was_taken_meanwhile_is_refused(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
        with pytest.raises(ConflictError, match="version 1 of digits was expected to be the next, and that is 2"):
            records.versions.add(new_version("b"), number=1)
        assert records.versions.add(new_version("b"), number=2).number == 2


def test_the_same_content_twice_names_the_version_that_has_it(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a", "b")
        with pytest.raises(ConflictError, match="version 2 of digits already"):
            records.versions.add(new_version("b"))


def test_the_same_content_under_two_models_is_found_by_its_digest(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a", "b")
        add_model(records, "copy", "b")
        assert records.versions.with_content(digest("b")) == [("copy", 1), ("digits", 2)]
        assert records.versions.with_content(digest("c")) == []


def test_a_parent_has_to_be_an_earlier_version_of_the_same_model(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
        add_model(records, "fraud", "b", "c")
        assert records.versions.add(new_version("d", parent=1)).parent == 1
        with pytest.raises(NotFoundError, match="no version 3 of digits"):
            records.versions.add(new_version("e", parent=3))


def test_a_version_of_an_unknown_model_is_refused(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records)
        for attempt in (
            lambda: records.versions.add(new_version(model="digit")),
            lambda: records.versions.next_number("digit"),
            lambda: records.versions.all("digit"),
            lambda: records.versions.get("digit", 1),
        ):
            with pytest.raises(NotFoundError, match="no model 'digit'"):
                attempt()


def test_an_unknown_version_says_which_is_the_newest(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a", "b")
        add_model(records, "empty")
        with pytest.raises(NotFoundError) as caught:
            records.versions.get("digits", 7)
        assert caught.value.hints == ("the newest is 2",)
        with pytest.raises(NotFoundError) as caught:
            records.versions.get("empty", 1)
        assert caught.value.hints == ("it has no version yet",)


def test_mere_weights_have_no_graph(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records)
        assert records.versions.add(new_version(graph_digest=None, tensors=())).graph_digest is None


def test_two_versions_are_compared(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
        records.versions.add(new_version("b", graph_digest=digest("other graph")))
        found = records.versions.diff("digits", 1, 2)
    assert [before.name for before, _ in found.changed] == ["weight"]
    assert [same.name for same in found.same] == ["bias"]
    assert found.graph_changed


def test_a_sealed_file_that_was_written_anew_replaces_the_old_one_and_nothing_else(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records)
        before = records.versions.add(new_version(original=sealed("o")))
        after = records.versions.reseal("digits", 1, "served", sealed("digits/1.rewrapped"))
    assert after.served == sealed("digits/1.rewrapped")
    assert after.original == before.original
    assert after.content_digest == before.content_digest
    with pytest.raises(NotFoundError), registry.write() as records:
        records.versions.reseal("digits", 2, "served", sealed())


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../b"])
def test_a_path_out_of_the_installation_is_the_callers_mistake(registry: Registry, path: str) -> None:
    with registry.write() as records:
        add_model(records)
        with pytest.raises(ValueError, match="leads out of the installation"):
            records.versions.add(new_version(served=SealedFile(path, digest("a"), digest("b"))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"content_digest": "00"}, ValueError),
        ({"graph_digest": "XX"}, ValueError),
        ({"format": "O N N X"}, PalladionError),
        ({"publisher": ""}, PalladionError),
        ({"note": "\x1b[2J"}, PalladionError),
        ({"marks": ({"figure": 0.5},)}, ValueError),
        ({"marks": ({"text": "a" * tables.JSON_BYTES_MAX},)}, ValueError),
        ({"tensors": (tensor("a"), tensor("a"))}, ValueError),
        ({"tensors": (tensor("a", digest="00"),)}, ValueError),
        ({"tensors": (tensor("ä" * 1025),)}, FormatError),
    ],
)
def test_a_version_that_says_something_wrong_is_refused(
    registry: Registry, change: dict[str, Any], error: type[Exception]
) -> None:
    with registry.write() as records:
        add_model(records)
        with pytest.raises(error):
            records.versions.add(new_version(**change))


@pytest.mark.slow
@pytest.mark.parametrize("table", tables.APPEND_ONLY)
@pytest.mark.parametrize("statement", ["UPDATE {} SET {column} = 'x'", "DELETE FROM {}"])
def test_history_cannot_be_changed_even_by_hand(registry: Registry, table: str, statement: str) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a", "b")
        records.versions.add(new_version("c", model="digits", privacy=SignedPrivacy({"by": "ada"}, "ab")))
        records.promotions.promote("digits", 1, actor="ada")
        records.canaries.begin("digits", 2, percent=5, actor="ada")
        calibration = records.calibrations.add("digits", 1, path="p", digest="0" * 64, simulated=True, clients=1)
        records.calibrations.add_curve(calibration, {"points": []})
        records.recipients.add("bob", kind="x25519", public_key="k")
        sent = SealedFile("p", "0" * 64, "1" * 64)
        records.deliveries.add("digits", 1, "bob", sealed=sent, fingerprinted=True, actor="ada")
        client = records.clients.add("scoring", organisation="acme", actor="ada")
        case = records.incidents.open("a case", actor="ada", clients=[client.id])
        finding = "honest all along"
        records.incidents.close(case.id, actor="ada", finding=finding, verdict="false-alarm", cleared=[client.id])
        proposal = records.proposals.add({"client": client.id}, reason="a thief", proposer="ada", days=7)
        records.proposals.decide(proposal.id, "approved", actor="bob", reason="seen")
        asked = records.approvals.add("0" * 16, {"id": "0"}, requester="ada", expires=proposal.expires)
        records.approvals.say(asked.id, "granted", {}, actor="bob")
        records.approvals.use(asked.id, actor="ada")
    connection = sqlite3.connect(registry.path)
    with pytest.raises(sqlite3.IntegrityError, match=f"rows of {table} never change"):
        connection.execute(statement.format(table, column=tables.metadata.tables[table].columns.keys()[-1]))
    connection.close()


def test_a_refused_change_is_one_of_our_errors(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
    for statement in (update(tables.version).values(note="forged"), delete(tables.version)):
        with pytest.raises(ConflictError, match="rows of version never change"), registry.write() as records:
            records.models._transaction.change(statement)


def test_a_version_without_a_sealed_file_is_a_damaged_registry(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
    connection = sqlite3.connect(registry.path)
    connection.executescript("DROP TRIGGER sealed_file_no_delete; DELETE FROM sealed_file")
    connection.close()
    with registry.read() as records, pytest.raises(FormatError, match="no sealed file for version 1 of digits"):
        records.versions.get("digits", 1)


def test_threads_that_add_at_once_share_the_numbers(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records)

    def add(content: str) -> int:
        with registry.write() as records:
            return records.versions.add(new_version(content)).number

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(add, [f"content {i}" for i in range(20)]))
    assert sorted(numbers) == list(range(1, 21))


ADD_TEN = """
import sys
from pathlib import Path
from palladion.clock import SystemClock
from palladion.registry import Registry
from tests.registry.factories import new_version
with Registry.open(Path(sys.argv[1]), SystemClock()) as registry:
    for i in range(10):
        with registry.write() as records:
            records.versions.add(new_version(f"{sys.argv[2]} {i}"))
"""


@pytest.mark.slow
def test_processes_that_add_at_once_share_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    with Registry.open(path, SystemClock()) as registry:
        with registry.write() as records:
            add_model(records)
        root = Path(__file__).resolve().parents[2]
        writers = [
            subprocess.Popen([sys.executable, "-c", ADD_TEN, str(path), name], cwd=root) for name in ("one", "two")
        ]
        assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
        with registry.read() as records:
            assert [version.number for version in records.versions.all("digits")] == list(range(1, 21))
