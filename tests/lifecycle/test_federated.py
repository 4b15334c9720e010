"""A federation's rounds: each model a version, each site's copy its own, a leak named, each round on record."""

from pathlib import Path

import numpy as np
import pytest

from palladion.errors import ConflictError, NotFoundError
from palladion.ledger.record import KINDS, Record, decode_record
from palladion.lifecycle.federated import Federation
from palladion.lifecycle.prove import prove
from palladion.lifecycle.recipients import add_recipient, revoke_recipient
from palladion.model.read import read_memory
from palladion.private.federated.layout import Layout
from palladion.private.federated.rounds import Rounds, mean_step
from palladion.private.federated.site import Train
from palladion.seal.recipients import FileIdentity
from tests.private.federated.house import Road, fixed, name_of, road_of, terms_of

from .installations import ACTOR, Made, kinds, make

LAYOUT = Layout({"a": (64, 8), "b": (8,), "c": (32, 16)})
START = np.random.default_rng(7).standard_normal(LAYOUT.size).astype(np.float32)


def _made(folder: Path, sites: int = 4) -> Made:
    made = make(folder)
    for number in range(sites):
        identity = FileIdentity(bytes([0x41 + number]) * 32)
        add_recipient(made.installation, name_of(number), str(identity.recipient), note="", actor=ACTOR)
    return made


def _federation(made: Made, layout: Layout = LAYOUT, **changes: object) -> Federation:
    terms = terms_of(4, threshold=3, size=layout.size, **changes)
    return Federation(made.installation, made.owner, terms, layout, "house", made.home.parent / "scratch", ACTOR)


def _leak(vector: np.ndarray, layout: Layout = LAYOUT) -> dict[str, bytes]:
    from safetensors.numpy import save

    return {"leak.safetensors": save(layout.unpacked(vector))}


def _records(made: Made, kind: str) -> list[Record]:
    records = [decode_record(data, what="it") for _, data in made.installation.read_ledger().entries()]
    return [record for record in records if record.kind == kind]


def _trained(made: Made, road: Road, rounds: int) -> dict[tuple[str, int], np.ndarray]:
    """Train, and give what each site got, by site and round."""
    federation = _federation(made, noise_multiplier=1.0)
    got: dict[tuple[str, int], np.ndarray] = {}

    def keeping(name: str) -> Train:
        def train(model: np.ndarray, number: int) -> np.ndarray:
            got[name, number] = model
            return model * 0

        return train

    for name, site in road.sites.items():
        site._train = keeping(name)
    federation.check()
    on = Rounds(road.terms, lambda: road.nodes, road.ask, mean_step, copies=federation.copies, ended=federation.ended)
    on.run(START, rounds)
    return got


@pytest.mark.slow
@pytest.mark.skipif("federation.round" not in KINDS, reason="the kind of record federation.round is not known yet")
def test_a_leaked_copy_of_a_round_names_its_site_and_rounds_are_on_record(tmp_path: Path) -> None:
    made = _made(tmp_path)
    road = road_of(_federation(made, noise_multiplier=1.0).terms, seed=1)
    road.lost = {("AskUpdate", name_of(3))}
    got = _trained(made, road, 2)
    for site, number in ((name_of(1), 1), (name_of(2), 2)):
        tested = prove(
            made.installation, made.owner, read_memory(_leak(got[site, number])), [], copies=True, actor=ACTOR
        )
        assert tested[0].version.number == number
        assert [who.recipient for who in tested[0].accused] == [site]
    assert not list((tmp_path / "scratch").iterdir())
    rounds = _records(made, "federation.round")
    assert [record.details["round"] for record in rounds] == [1, 2]
    assert rounds[0].details["survivors"] == [name_of(0), name_of(1), name_of(2)]
    assert rounds[0].details["dropped"] == {name_of(3): "did not answer"}
    assert float(rounds[0].details["epsilon"]) < float(rounds[1].details["epsilon"])
    assert kinds(made.installation).count("model.delivered") == 8


@pytest.mark.slow
def test_copies_differ_by_site_and_hardly_from_the_model(tmp_path: Path) -> None:
    made = _made(tmp_path)
    copy_for = _federation(made).copies(1, START)
    one, other = copy_for(name_of(0), START), copy_for(name_of(1), START)
    assert not np.array_equal(one, other)
    assert 0 < np.linalg.norm(one - START) < 0.03 * np.linalg.norm(START)


def test_a_model_too_small_to_trace_is_refused_before_the_first_round(tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="too small"):
        _federation(_made(tmp_path), Layout({"a": (10, 5)})).check()


def test_a_site_that_is_no_recipient_is_refused_before_the_first_round(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        _federation(_made(tmp_path, sites=3)).check()


def test_a_site_that_was_revoked_gets_no_model(tmp_path: Path) -> None:
    made = _made(tmp_path)
    revoke_recipient(made.installation, name_of(2), actor=ACTOR)
    with pytest.raises(ConflictError, match="revoked"):
        _federation(made).check()


def test_a_round_is_recorded_as_it_went(tmp_path: Path) -> None:
    if "federation.round" not in KINDS:
        pytest.skip("the kind of record federation.round is not known yet")
    made = _made(tmp_path)
    federation = _federation(made)
    road = road_of(federation.terms, {number: fixed(np.zeros(LAYOUT.size)) for number in range(4)})
    Rounds(road.terms, lambda: road.nodes, road.ask, mean_step, ended=federation.ended).run(START, 1)
    (record,) = _records(made, "federation.round")
    assert record.subject == "house/test"
    assert record.details["epsilon"] == ""
    assert record.details["terms"] == federation.terms.digest.hex()
