"""Keys of marked text: given once, private, on record, and all of them tested."""

import json
import stat
from pathlib import Path

import numpy as np
import pytest

from palladion.errors import ConflictError, FormatError, NotFoundError, StorageError
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.text import Given, give_key, given_keys, prove_text, read_text_key
from palladion.mark.text.engines import engine_chance
from palladion.mark.text.gumbel import Chance

from .installations import make


@pytest.fixture
def house(tmp_path: Path) -> Installation:
    return make(tmp_path).installation


def _written(chance: Chance) -> list[int]:
    rng = np.random.default_rng(1)
    tokens: list[int] = rng.integers(200, size=4).tolist()
    for _ in range(120):
        noise = -np.log(-np.log(chance.uniforms(tokens[-4:], np.arange(200)) + 2**-33))
        tokens.append(int(np.argmax(2 * rng.standard_normal(200) + noise)))
    return tokens


@pytest.mark.slow
def test_text_names_the_tenant_whose_key_marked_it(house: Installation, tmp_path: Path) -> None:
    gate = house.open_gate_root()
    for tenant in ("acme", "beta"):
        give_key(house, gate, Given(tenant, "1", None), tmp_path / tenant, actor="ann")
    give_key(house, gate, Given("acme", "1", "sglang"), tmp_path / "engine", actor="ann")

    ours = prove_text(house, gate, [_written(read_text_key(tmp_path / "beta"))], actor="ann", subject="x")
    engine = engine_chance("sglang", int(json.loads((tmp_path / "engine").read_text())["key"], 16))
    theirs = prove_text(house, gate, [_written(engine)], actor="ann", subject="x")

    assert ours[0][0] == Given("beta", "1", None)
    assert theirs[0][0] == Given("acme", "1", "sglang")
    assert [finding.log10_p < -9 for _, finding in ours] == [True, False, False]
    assert [finding.log10_p < -9 for _, finding in theirs] == [True, False, False]


def test_a_key_is_written_where_only_its_owner_reads_and_over_no_file(house: Installation, tmp_path: Path) -> None:
    gate = house.open_gate_root()
    give_key(house, gate, Given("acme", "1", None), tmp_path / "key", actor="ann")

    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    with pytest.raises(StorageError):
        give_key(house, gate, Given("beta", "1", None), tmp_path / "key", actor="ann")
    assert given_keys(house) == [Given("acme", "1", None)]


def test_a_key_that_is_given_twice_is_tested_once(house: Installation, tmp_path: Path) -> None:
    gate = house.open_gate_root()
    for name in ("a", "b"):
        give_key(house, gate, Given("acme", "1", "vllm"), tmp_path / name, actor="ann")

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert given_keys(house) == [Given("acme", "1", "vllm")]


def test_without_a_key_there_is_nothing_to_test(house: Installation) -> None:
    with pytest.raises(NotFoundError, match="no key of marked text"):
        prove_text(house, house.open_gate_root(), [[1] * 30], actor="ann", subject="x")


@pytest.mark.slow
@pytest.mark.parametrize("tenant", ["", "a b", "../x", "a" * 65])
def test_a_name_that_cannot_be_one_is_refused(house: Installation, tmp_path: Path, tenant: str) -> None:
    with pytest.raises(ConflictError, match="name of a tenant"):
        give_key(
            house,
            house.open_gate_root(),
            Given(tenant, "1", None),
            tmp_path / "key",
            actor="ann",
        )


@pytest.mark.parametrize("content", [b"", b"[]", b'{"scheme": "text-1"}', b'{"scheme": "text-1", "key": "ab"}'])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)

    with pytest.raises(FormatError):
        read_text_key(tmp_path / "key")
