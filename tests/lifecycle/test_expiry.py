"""`palladion ledger expire`: what a gate would erase, where none runs; and what doctor says of what is kept."""

import shutil
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from palladion.clock import ManualClock
from palladion.errors import ConflictError
from palladion.ledger.bodies import FOLDER, BodyWriter, body_path, read_retained
from palladion.ledger.body import Body
from palladion.ledger.record import decode_record
from palladion.lifecycle.doctor import examine
from palladion.lifecycle.expiry import expire_retained, look_at_retained
from palladion.lifecycle.installation import Installation
from palladion.policy import RoutePolicy

from .installations import NOW, make, served

CLIENTS = ["client:" + letter * 20 for letter in "ab"]
VERSION = "fraud@1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An installation."""
    return make(tmp_path_factory.mktemp("expiry")).installation


@pytest.fixture
def kept(made: Installation) -> Installation:
    """It, with two queries of each of two clients: 100 days old, and 10."""
    key, folder = _key(made), made.paths.directory / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    writer = BodyWriter(folder, key, queries_max=10)
    for client in CLIENTS:
        for days in (100, 10):
            at = (NOW - timedelta(days=days)).timestamp()
            inputs = {"x": np.full(2, days, np.float32)}
            writer.append(client, VERSION, [Body("r", 0, inputs, np.ones(2), b"", 0.0, "full", at)])
    writer.close()
    return made


def _key(installation: Installation) -> bytes:
    return installation.open_gate_root().derive("body-cipher")


def _with(installation: Installation, *routes: RoutePolicy, **retention: object) -> Installation:
    policy = installation.policy
    retained = msgspec.structs.replace(policy.retention, **retention)
    policy = msgspec.structs.replace(policy, retention=retained, route=routes)
    return Installation(installation.paths, policy, ManualClock(NOW))


def _ages(installation: Installation, client: str) -> list[int]:
    folder = installation.paths.directory / FOLDER
    return [int(item.inputs["x"][0]) for item in read_retained(folder, _key(installation), client, VERSION).bodies]


def _said(installation: Installation) -> tuple[str, str, str]:
    (check,) = (item for item in examine(installation) if item.name == "retained queries")
    return check.status, check.message, check.hint


def test_what_is_due_is_erased_and_recorded_once(kept: Installation) -> None:
    here = _with(kept)
    assert look_at_retained(here).overdue
    found = expire_retained(here, actor="user:ada")
    assert (found.bodies, found.clients, found.failed) == (2, 2, ())
    assert [_ages(here, client) for client in CLIENTS] == [[10], [10]]
    assert found.receipt is not None
    reader = here.read_ledger()
    record = decode_record(dict(reader.entries(found.receipt.index))[found.receipt.index], what="it")
    assert (record.kind, record.actor, record.details["bodies"]) == ("bodies.expired", "user:ada", 2)
    assert expire_retained(here, actor="user:ada").receipt is None
    assert not look_at_retained(here).overdue


def test_a_damaged_file_is_named_and_the_others_are_looked_through(kept: Installation) -> None:
    path = body_path(kept.paths.directory / FOLDER, CLIENTS[0], VERSION)
    sound = path.read_bytes()
    path.write_bytes(b"something else")
    found = expire_retained(_with(kept), actor="user:ada")
    path.write_bytes(sound)
    assert found.clients == 1
    assert "holds no retained bodies" in found.failed[0]


def test_a_gate_that_serves_does_it_itself(kept: Installation) -> None:
    with served(kept), pytest.raises(ConflictError, match="a gate serves, and erases by itself"):
        expire_retained(_with(kept), actor="user:ada")


def test_doctor_says_what_is_kept_and_for_how_long(kept: Installation) -> None:
    status, message, hint = _said(_with(kept))
    assert (status, hint) == ("warning", "palladion ledger expire, or let a gate run, which erases them")
    assert message.endswith("some have been kept for longer than 90 days, with a marked answer 730")
    status, message, _ = _said(_with(kept, days=200))
    assert status == "ok"
    assert message == (
        "2 files of 2 clients, 0.0 MiB; at most 5000 of each client and version are kept, "
        "for 200 days, with a marked answer 730"
    )


@pytest.mark.parametrize("retention", [{"queries": 0}, {"unmarked": False}], ids=["nothing", "only marks"])
def test_doctor_says_what_cannot_be_done_where_nothing_is_kept(
    kept: Installation, retention: dict[str, object]
) -> None:
    status, message, _ = _said(_with(kept, days=200, **retention))
    assert (status, "no new version can be calibrated" in message) == ("warning", True)
    marking = RoutePolicy(model="fraud", flipped=0.03)
    assert _said(_with(kept, marking, days=200, unmarked=False))[0] == "ok"
