"""Programs of a policy: which are opened, and which are refused."""

import asyncio
from pathlib import Path

import pytest

from palladion.errors import FormatError, KeysError, NotFoundError, PalladionError, PolicyError, StorageError
from palladion.gate.brokered import BrokeredKeys
from palladion.gate.checks import check_routes
from palladion.gate.encrypted.routes import EncryptedRoutes, read_program
from palladion.gate.operations.precheck import check_servable
from palladion.lifecycle.installation import Installation
from palladion.policy import parse_policy
from palladion.policy.encrypted import EncryptedPolicy
from palladion.private.homomorphic.leakage import slots_carried
from tests.gate.encrypted.programs import FILE, MODEL, PATH, place
from tests.gate.gates import House, open_gate
from tests.private.homomorphic.programs import needs_seal, program

PROGRAM = program((6, 3))


def reread(house: House) -> Installation:
    policy = parse_policy(house.installation.paths.policy.read_bytes(), "palladion.toml")
    return Installation(house.installation.paths, policy, house.installation.clock)


@pytest.fixture
def mine(house: House, tmp_path: Path) -> House:
    needs_seal()
    return house.copy(tmp_path)


def open_routes(mine: House, installation: Installation) -> EncryptedRoutes:
    async def go() -> EncryptedRoutes:
        routes = EncryptedRoutes(installation, open_gate(mine).gate.stages)
        await routes.close()
        return routes

    return asyncio.run(go())


def test_a_program_answers_on_three_paths_and_says_what_recovers_it(mine: House) -> None:
    place(mine, PROGRAM)
    routes = open_routes(mine, reread(mine))
    assert sorted(routes.endpoints) == [PATH, f"{PATH}/keys", f"{PATH}/query"]
    said = list(routes.said("http://gate"))
    assert said[0] == f"encrypted http://gate{PATH}: {MODEL}, a network of 6-3"
    assert said[1].startswith(f"warning: 7 slots recover {MODEL}, and each client may have 1000000 (slots_per_client)")
    assert "one to three ciphertexts" in said[1]


def test_a_budget_below_one_ciphertext_is_told_to_answer_nothing(mine: House) -> None:
    one = slots_carried(PROGRAM.bundle, 1, by_columns=False)
    place(mine, PROGRAM, slots_per_client=one - 1)
    said = list(open_routes(mine, reread(mine)).said(""))
    assert said[1] == f"warning: a ciphertext costs {one} slots, and each client may have {one - 1}: none is answered"


def test_without_programs_there_is_nothing_and_no_file(mine: House) -> None:
    routes = open_routes(mine, reread(mine))
    assert routes.endpoints == {}
    assert not list(mine.installation.paths.directory.glob("*slots*"))


def test_a_file_that_others_may_read_is_refused(mine: House) -> None:
    place(mine, PROGRAM, mode=0o640)
    with pytest.raises(KeysError, match="others may read it"):
        open_routes(mine, reread(mine))


def test_a_file_that_is_no_program_is_refused(mine: House) -> None:
    path = place(mine, PROGRAM)
    path.write_bytes(b"something else")
    with pytest.raises(FormatError, match="no homomorphic program"):
        open_routes(mine, reread(mine))


def test_without_a_file_the_promoted_version_is_opened(mine: House) -> None:
    with pytest.raises(NotFoundError, match=r"name a file|no model"):
        read_program(mine.installation, EncryptedPolicy(model="nothing"))
    # an ordinary model is opened, and is no program
    data, subject, info = read_program(mine.installation, EncryptedPolicy(model="fraud"))
    assert subject == "fraud@1"
    assert info is not None
    assert not data.startswith(b"palladion homomorphic")


def test_a_sealed_program_is_not_opened_where_a_broker_lends_the_keys(mine: House) -> None:
    mine.installation.file_keys = BrokeredKeys(None)  # type: ignore[arg-type]  # asks nobody
    with pytest.raises(PolicyError, match="not with a broker's"):
        read_program(mine.installation, EncryptedPolicy(model="fraud"))


def test_what_serve_would_refuse_is_found_without_serving(mine: House) -> None:
    path = place(mine, PROGRAM)
    check_servable(reread(mine))
    path.write_bytes(PROGRAM.encode()[:-1])
    with pytest.raises(FormatError, match="weights"):
        check_servable(reread(mine))
    path.unlink()
    with pytest.raises(StorageError):
        check_servable(reread(mine))


def test_two_programs_of_one_name_or_path_are_refused(mine: House) -> None:
    place(mine, PROGRAM)
    place(mine, PROGRAM)
    with pytest.raises(PolicyError, match="taken twice"):
        check_routes(reread(mine))
    with pytest.raises(PolicyError):
        open_routes(mine, reread(mine))


def test_a_path_of_another_route_is_refused(mine: House) -> None:
    place(mine, PROGRAM, path="/v1/mine")
    routes = open_routes(mine, reread(mine))
    with pytest.raises(PolicyError, match="/v1/mine is taken twice"):
        routes.beside(dict(routes.endpoints))


def test_settings_of_a_program_stay_within_their_bounds(mine: House) -> None:
    text = f'[[encrypted]]\nmodel = "{MODEL}"\nprogram = "{FILE}"\n'
    for line in ("slots_per_client = 0", "workers = 0", 'path = "no/slash"', 'path = "/ends/"', 'mode = "off"'):
        with pytest.raises(PalladionError):
            parse_policy(f"{text}{line}\n".encode(), "palladion.toml")


def test_a_policy_that_is_not_taken_over_leaves_the_workers_of_the_one_in_force(mine: House) -> None:
    place(mine, PROGRAM)

    async def failed(routes: EncryptedRoutes) -> list[bool]:
        closed = []
        try:
            async with routes.renewing(reread(mine)) as made:
                closed = [item.workers for item in made]
                raise PolicyError("another part refuses it")
        except PolicyError:
            return [workers._closed for workers in closed]

    async def go() -> None:
        routes = EncryptedRoutes(reread(mine), open_gate(mine).gate.stages)
        in_force = routes._serving[0].workers
        assert await failed(routes) == [False]
        text = mine.installation.paths.policy.read_text()
        mine.installation.paths.policy.write_text(f"{text}workers = 2\n")
        assert await failed(routes) == [True]
        assert not in_force._closed
        await routes.close()
        assert in_force._closed

    asyncio.run(go())
