"""Decoys are made and retired with a record, and neither ledger nor registry tells what they are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.access.identity import key_prefix, parse_api_key
from palladion.errors import ConflictError, FormatError, NotFoundError
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle import decoys as module
from palladion.lifecycle.decoys import (
    add_decoy_key,
    add_decoy_prompts,
    add_decoy_rows,
    parse_decoy_rows,
    read_decoy_prompts,
    read_decoy_rows,
    retire_decoy,
)
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import OpenedModel, open_version
from palladion.model.graph import Value, ValueType
from palladion.policy import RoutePolicy
from tests.gate.gates import MODEL, House, make_house
from tests.lifecycle.installations import ACTOR

ROWS = np.array([[0.125, -1.5, 2.25, 4.75], [9.5, 8.5, 7.5, 6.5]])
PROMPT = "What did the harbour master write on the 31st of June?"
CHAT = RoutePolicy(model="chat", protocol="openai", upstream="http://127.0.0.1:9")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> House:
    return make_house(tmp_path_factory.mktemp("decoys"))


@pytest.fixture
def house(whole: House, tmp_path: Path) -> House:
    return whole.copy(tmp_path)


def _records(installation: Installation) -> list[Record]:
    return [decode_record(data, what="it") for _, data in installation.read_ledger().entries()]


def _everything(installation: Installation) -> bytes:
    files = [path for path in installation.paths.directory.rglob("*") if path.is_file()]
    return b"".join(path.read_bytes() for path in files)


@pytest.mark.slow
def test_a_key_looks_like_any_other_and_stands_nowhere(house: House) -> None:
    decoy, key, receipt = add_decoy_key(
        house.installation, label="wiki of team X", organisation="acme", environment="test", actor=ACTOR
    )
    assert len(key.text) == len(house.keys["acme"])
    assert parse_api_key(key.text).environment == parse_api_key(house.keys["acme"]).environment
    assert decoy.prefix == key_prefix(key)
    last = _records(house.installation)[-1]
    assert (last.kind, last.subject, last.actor) == ("decoy.added", f"decoy:{decoy.id}", ACTOR)
    assert last.details == {"kind": "key", "model": None, "count": 1}
    assert receipt.index == len(_records(house.installation)) - 1
    assert key.text.encode()[16:] not in _everything(house.installation)
    with house.installation.open_registry() as registry, registry.read() as records:
        assert decoy.prefix not in [key.prefix for _, key in records.clients.credentials()]


def test_rows_and_prompts_stand_nowhere_in_plain(house: House) -> None:
    installation = house.with_policy(RoutePolicy(model=MODEL), CHAT)
    rows, _ = add_decoy_rows(installation, MODEL, ROWS, label="May", tolerance=1e-3, one_unit=False, actor=ACTOR)
    texts, _ = add_decoy_prompts(installation, "chat", [PROMPT, PROMPT[::-1]], label="June", actor=ACTOR)
    assert (rows.kind, rows.count, texts.kind, texts.count) == ("rows", 2, "texts", 2)
    kept = _everything(installation)
    for secret in (ROWS[0].tobytes(), ROWS[0].astype(np.float32).tobytes()[:8], PROMPT.encode(), b"harbour"):
        assert secret not in kept
    assert [record.kind for record in _records(installation)][-2:] == ["decoy.added"] * 2


def test_a_retired_decoy_stays_retired(house: House) -> None:
    decoy, _, _ = add_decoy_key(house.installation, label="x", organisation=None, environment="live", actor=ACTOR)
    retired, _ = retire_decoy(house.installation, decoy.id[:6], actor="user:bob")
    assert retired.retired_at is not None
    last = _records(house.installation)[-1]
    assert (last.kind, last.subject, last.actor) == ("decoy.retired", f"decoy:{decoy.id}", "user:bob")
    with pytest.raises(ConflictError, match="was retired"):
        retire_decoy(house.installation, decoy.id, actor=ACTOR)


def test_a_decoy_that_nobody_could_touch_is_refused(house: House) -> None:
    installation = house.with_policy(RoutePolicy(model=MODEL), CHAT)
    common = {"label": "x", "actor": ACTOR}
    with pytest.raises(NotFoundError, match="no model 'frayd'"):
        add_decoy_rows(installation, "frayd", ROWS, tolerance=1e-3, one_unit=False, **common)
    with pytest.raises(ConflictError, match="chat is asked prompts here, never rows"):
        add_decoy_rows(installation, "chat", ROWS, tolerance=1e-3, one_unit=False, **common)
    with pytest.raises(ConflictError, match="fraud is asked rows here, never prompts"):
        add_decoy_prompts(installation, MODEL, [PROMPT], **common)
    with pytest.raises(FormatError, match="prompt 1 has 5 characters"):
        add_decoy_prompts(installation, "chat", ["hello"], **common)
    assert not [record for record in _records(installation) if record.kind.startswith("decoy")]


def test_rows_of_another_width_than_the_model_takes_are_refused(house: House) -> None:
    installation = house.with_policy(RoutePolicy(model=MODEL), RoutePolicy(model="far", upstream="http://127.0.0.1:9"))
    common: dict[str, Any] = {"label": "x", "tolerance": 1e-3, "one_unit": False, "actor": ACTOR}
    for wide in (np.ones((2, 5)), np.ones((1, 2, 3))):
        with pytest.raises(FormatError, match=f"a row has {wide[0].size} numbers, fraud takes 4: nobody could touch"):
            add_decoy_rows(installation, MODEL, wide, **common)
    assert not [record for record in _records(installation) if record.kind.startswith("decoy")]
    assert add_decoy_rows(installation, MODEL, np.ones((1, 2, 2)), **common)[0].count == 1
    # not registered here: what it takes is not known
    assert add_decoy_rows(installation, "far", np.ones((2, 5)), **common)[0].count == 2


@pytest.mark.slow
def test_a_model_that_does_not_say_how_wide_its_rows_are_takes_any(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*arguments: Any, **named: Any) -> OpenedModel:
        found = open_version(*arguments, **named)
        graph = found.model.graph
        assert graph is not None
        types = (ValueType("tensor", "float32", (None, 2, 2)), ValueType("tensor", "string", (None, 9)), *more)
        inputs = tuple(Value(f"input {number}", type_) for number, type_ in enumerate(types))
        found.model = replace(found.model, graph=replace(graph, main=replace(graph.main, inputs=inputs)))
        return found

    monkeypatch.setattr(module, "open_version", opened)
    common: dict[str, Any] = {"label": "x", "tolerance": 1e-3, "one_unit": False, "actor": ACTOR}
    more: tuple[ValueType | None, ...] = (ValueType("tensor", "int64", ("rows", 3)),)
    with pytest.raises(FormatError, match="a row has 6 numbers, fraud takes 7"):
        add_decoy_rows(house.installation, MODEL, np.ones((1, 6)), **common)
    for open_one in (None, ValueType("tensor"), ValueType("tensor", "float32", (None, "any"))):
        more = (open_one,)
        assert add_decoy_rows(house.installation, MODEL, np.ones((1, 6)), **common)[0].count == 1


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "named.npz", "a.csv"])
def test_rows_are_read_from_arrays_and_texts(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, ROWS)
    elif name == "a.npz":
        np.savez(path, only=ROWS)
    elif name == "named.npz":
        np.savez(path, x=ROWS, y=np.ones(2))
    else:
        path.write_text("0.125,-1.5,2.25,4.75\n\n9.5, 8.5, 7.5, 6.5\n")
    assert read_decoy_rows(path).tolist() == ROWS.tolist()


def test_files_that_hold_no_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    np.savez(tmp_path / "two.npz", a=ROWS, b=ROWS)
    np.save(tmp_path / "objects.npy", np.array([{}, []], object), allow_pickle=True)
    whole = (tmp_path / "two.npz").read_bytes()
    for data, why in (
        (whole, "several arrays and none called x"),
        (whole[:-30], "holds no rows"),
        ((tmp_path / "objects.npy").read_bytes(), "holds no rows"),
        (b"1,2\n1,2,3\n", "row 2 has 3 numbers, 2 were expected"),
        (b"1,2\n\xff\n", "row 2 is not a list of numbers"),
        (b"a,b\n", "row 1 is not a list of numbers"),
    ):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=why):
            read_decoy_rows(path)
    assert parse_decoy_rows([" ", ""]).size == 0


def test_prompts_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts"
    path.write_text(f"{PROMPT}\n\n  {PROMPT[::-1]}\n")
    assert read_decoy_prompts(path) == [PROMPT, f"  {PROMPT[::-1]}"]
    path.write_bytes(b"\xff")
    with pytest.raises(FormatError, match="not UTF-8"):
        read_decoy_prompts(path)
