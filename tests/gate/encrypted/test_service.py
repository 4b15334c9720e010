"""A real gate with real workers, asked over HTTP by the client that customers use."""

import http.client
import json
import os
import random
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from palladion.cli.main import main
from palladion.gate.encrypted.endpoint import REFUSED
from palladion.ledger.record import decode_record
from palladion.lifecycle.promote import promote
from palladion.lifecycle.seal import seal
from palladion.lifecycle.slots import SLOTS_FILE
from palladion.private.homomorphic.ask import GateClient, GateError
from palladion.private.homomorphic.client import HEClient
from palladion.private.homomorphic.envelope import MEDIA_TYPE, Envelope, keys_id
from palladion.private.homomorphic.leakage import slots_carried
from tests.gate.encrypted.programs import PATH, place
from tests.gate.gates import House
from tests.gate.service import Answered, Service, configure, serving
from tests.lifecycle.installations import ACTOR, OWNER
from tests.private.homomorphic.programs import needs_seal, program, rows

pytestmark = pytest.mark.service

WIDTHS = (6, 4, 3)
PROGRAM = program(WIDTHS, copies=1)
PER_QUERY = slots_carried(PROGRAM.bundle, 1, by_columns=False)  # slots that one ciphertext costs
SLOTS = 10**8


@pytest.fixture(scope="module")
def service(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    needs_seal()
    mine = house.copy(tmp_path_factory.mktemp("encrypted"))
    configure(mine, limits={"queries_per_second": 1e6, "burst": 10**6})
    place(mine, PROGRAM, slots_per_client=SLOTS, slots_total=10 * SLOTS)
    with serving(mine) as running:
        yield running


@pytest.fixture(scope="module")
def client() -> HEClient:
    needs_seal()
    return HEClient(PROGRAM.bundle)


def gate(service: Service, name: str = "acme") -> GateClient:
    return GateClient(f"http://{service.host}:{service.port}{PATH}", service.house.keys[name])


def send(
    service: Service, method: str, path: str, body: bytes, *, name: str = "acme", kind: str = MEDIA_TYPE
) -> Answered:
    connection = http.client.HTTPConnection(service.host, service.port, timeout=60)
    try:
        headers = {"authorization": f"Bearer {service.house.keys[name]}", "content-type": kind}
        connection.request(method, f"{PATH}{path}", body, headers)
        response = connection.getresponse()
        return Answered(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def query(client: HEClient, parts: list[bytes], *, keys: str | None = None) -> bytes:
    made = keys_id(*client.evaluation_keys) if keys is None else keys
    return Envelope("query", client.bundle.id, made, "interleaved", tuple(parts)).encode()


def worker_of(service: Service) -> int:
    """The process id of a worker of a gate."""
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    found = [
        int(child)
        for child in children
        if b"palladion.gate.encrypted.worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    assert found
    return found[0]


def test_a_customer_gets_the_answers_that_the_program_gives(service: Service, client: HEClient) -> None:
    assert gate(service).bundle().encode() == PROGRAM.bundle.encode()
    asked = rows(PROGRAM, 5)
    got = gate(service).ask(client, asked)
    assert np.allclose(got, PROGRAM.run(asked), atol=1e-2)


def test_many_rows_are_answered_by_columns(service: Service, client: HEClient) -> None:
    asked = rows(PROGRAM, PROGRAM.bundle.parameters.slots)
    got = gate(service).ask(client, asked, by_columns=True)
    assert np.allclose(got, PROGRAM.run(asked), atol=1e-2)


def test_each_answer_is_on_record_with_its_slots(service: Service, client: HEClient) -> None:
    gate(service).send_keys(client)
    answered = send(service, "POST", "/query", query(client, client.encrypt(rows(PROGRAM, 1))))
    assert answered.status == 200
    assert answered.headers["palladion-receipt"]


def test_a_stranger_learns_nothing(service: Service, client: HEClient) -> None:
    stranger = GateClient(f"http://{service.host}:{service.port}{PATH}", "pall_nobody")
    with pytest.raises(GateError) as caught:
        stranger.send_keys(client)
    assert caught.value.kind == "unauthenticated"


def test_who_may_not_ask_the_model_sends_no_keys_and_no_query(service: Service, client: HEClient) -> None:
    for method, path in (("PUT", "/keys"), ("POST", "/query"), ("GET", "")):
        assert send(service, method, path, b"", name="initech").problem == "forbidden"


def test_keys_of_one_client_are_not_there_for_another(service: Service, client: HEClient) -> None:
    gate(service, "acme").send_keys(client)
    answered = send(service, "POST", "/query", query(client, client.encrypt(rows(PROGRAM, 1))), name="globex")
    assert answered.status == 409
    assert answered.problem == "keys-needed"


@pytest.mark.parametrize(
    ("defect", "body"),
    [
        ("no envelope", b"hello"),
        ("an empty body", b""),
        ("a header without an end", b"palladion-encrypted 1\n\xff\xff\xff\xff"),
    ],
)
def test_what_is_no_envelope_is_refused(service: Service, defect: str, body: bytes) -> None:
    for method, path in (("PUT", "/keys"), ("POST", "/query")):
        assert send(service, method, path, body).problem == "bad-input", defect


def test_a_body_of_another_type_is_refused(service: Service) -> None:
    for method, path in (("PUT", "/keys"), ("POST", "/query")):
        assert send(service, method, path, b"{}", kind="application/json").status == 415


def test_keys_for_another_program_are_refused_before_seal_sees_them(service: Service) -> None:
    other = HEClient(program((6, 3)).bundle)
    envelope = Envelope("keys", PROGRAM.bundle.id, "", "interleaved", other.evaluation_keys).encode()
    answered = send(service, "PUT", "/keys", envelope)
    assert answered.problem == "bad-input"
    assert "expected" in answered.document["detail"]


def test_a_killed_worker_is_one_refusal_and_the_next_query_is_answered(service: Service, client: HEClient) -> None:
    asked = rows(PROGRAM, 2)
    gate(service).ask(client, asked)
    os.kill(worker_of(service), signal.SIGKILL)
    try:
        got = gate(service).ask(client, asked)
    except GateError as error:
        # whether the gate has noticed before it asked is the machine's affair
        assert error.kind == "upstream-failed"  # noqa: PT017
        got = gate(service).ask(client, asked)
    assert np.allclose(got, PROGRAM.run(asked), atol=1e-2)


def test_a_worker_has_no_files_no_network_and_no_way_to_new_rights(service: Service, client: HEClient) -> None:
    gate(service).ask(client, rows(PROGRAM, 1))
    status = Path(f"/proc/{worker_of(service)}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    if os.uname().machine in {"x86_64", "aarch64"}:
        assert "Seccomp:\t2" in status


@pytest.mark.slow
def test_no_mutated_ciphertext_and_no_mutated_keys_take_the_gate_down(service: Service, client: HEClient) -> None:
    chosen = random.Random(11)
    gate(service).send_keys(client)
    (good,) = client.encrypt(rows(PROGRAM, 1))
    rotation, squares = client.evaluation_keys
    for turn in range(60):
        broken = bytearray(good)
        for _ in range(chosen.choice((1, 8, 64))):
            broken[chosen.randrange(len(broken))] ^= 1 << chosen.randrange(8)
        answered = send(service, "POST", "/query", query(client, [bytes(broken)]))
        assert answered.status in {200, 422, 502}, turn
    for turn in range(12):
        keys = bytearray(rotation)
        for _ in range(chosen.choice((1, 64))):
            keys[chosen.randrange(len(keys))] ^= 1 << chosen.randrange(8)
        envelope = Envelope("keys", client.bundle.id, "", "interleaved", (bytes(keys), squares)).encode()
        sent = send(service, "PUT", "/keys", envelope)
        assert sent.status in {200, 422}, turn
        if sent.status == 200:
            answered = send(service, "POST", "/query", query(client, [good], keys=keys_id(bytes(keys), squares)))
            assert answered.status in {200, 422, 502}, turn
    assert gate(service).ask(client, rows(PROGRAM, 1)).shape == (1, WIDTHS[-1])


def test_the_lifetime_budget_ends_and_stays_ended(house: House, tmp_path: Path, client: HEClient) -> None:
    mine = house.copy(tmp_path)
    configure(mine, limits={"queries_per_second": 1e6, "burst": 10**6})
    place(mine, PROGRAM, slots_per_client=PER_QUERY, slots_total=SLOTS)
    with serving(mine) as first:
        gate(first).ask(client, rows(PROGRAM, 1))
        with pytest.raises(GateError) as caught:
            gate(first).ask(client, rows(PROGRAM, 1))
        assert caught.value.kind == "slots-spent"
        first.kill()
    with serving(mine) as second:
        with pytest.raises(GateError) as caught:
            gate(second).ask(client, rows(PROGRAM, 1))
        assert caught.value.kind == "slots-spent"
        gate(second, "globex").ask(client, rows(PROGRAM, 1))


def spent(house: House) -> int:
    """Slots of all clients, by the file."""
    database = sqlite3.connect(house.installation.paths.directory / SLOTS_FILE)
    try:
        return int(database.execute("SELECT sum(slots) FROM spent WHERE model = 'name:scores'").fetchone()[0])
    finally:
        database.close()


def test_what_seal_refuses_is_paid_for_and_tells_nothing(service: Service, client: HEClient) -> None:
    gate(service).send_keys(client)
    (good,) = client.encrypt(rows(PROGRAM, 1))
    half = PROGRAM.bundle.parameters.ciphertext_bytes // 2
    before = spent(service.house)
    answered = send(service, "POST", "/query", query(client, [good[:-half] + bytes(half)]))
    assert (answered.problem, answered.document["detail"]) == ("bad-input", REFUSED)
    assert spent(service.house) == before + PER_QUERY


def test_a_budget_of_the_rows_of_a_ciphertext_answers_none(house: House, tmp_path: Path, client: HEClient) -> None:
    # whoever chooses its evaluation keys reads more out of an answer than its rows
    mine = house.copy(tmp_path)
    configure(mine, limits={"queries_per_second": 1e6, "burst": 10**6})
    place(mine, PROGRAM, slots_per_client=PER_QUERY - 1)
    with serving(mine) as running, pytest.raises(GateError) as caught:
        gate(running).ask(client, rows(PROGRAM, 1))
    assert caught.value.kind == "slots-spent"


def test_networks_of_two_hidden_layers_are_answered_by_rows_alone(house: House, tmp_path: Path) -> None:
    needs_seal()
    deep = program((4, 3, 3, 2))
    asking, asked = HEClient(deep.bundle), rows(deep, 3)
    mine = house.copy(tmp_path)
    configure(mine, limits={"queries_per_second": 1e6, "burst": 10**6})
    place(mine, deep, slots_per_client=SLOTS)
    with serving(mine) as running:
        assert np.allclose(gate(running).ask(asking, asked), deep.run(asked), atol=1e-2)
        before = spent(mine)
        envelope = Envelope("query", deep.bundle.id, "", "columns", tuple(asking.encrypt_columns(asked))).encode()
        answered = send(running, "POST", "/query", envelope)
        assert answered.problem == "bad-input"
        assert "several hidden layers" in answered.document["detail"]
        assert spent(mine) == before


def test_a_program_that_others_may_read_is_not_served(house: House, tmp_path: Path) -> None:
    needs_seal()
    mine = house.copy(tmp_path)
    configure(mine)
    path = place(mine, PROGRAM, mode=0o644)
    with pytest.raises(AssertionError, match=r"has mode 0644: others may read it"):
        Service(mine)
    assert path.exists()


def test_a_changed_program_is_taken_over_while_requests_go_on(house: House, tmp_path: Path, client: HEClient) -> None:
    mine = house.copy(tmp_path)
    configure(mine, limits={"queries_per_second": 1e6, "burst": 10**6})
    path = place(mine, PROGRAM, slots_per_client=SLOTS)
    other = program(WIDTHS, copies=2, seed=9)
    with serving(mine) as running:
        gate(running).ask(client, rows(PROGRAM, 1))
        path.write_bytes(other.encode())
        text = mine.installation.paths.policy.read_text()
        mine.installation.paths.policy.write_text(
            text.replace(f"slots_per_client = {SLOTS}", "slots_per_client = 999999")
        )
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("the policy is")
        fresh = HEClient(gate(running).bundle())
        assert fresh.bundle.encode() == other.bundle.encode()
        asked = rows(other, 3)
        assert np.allclose(gate(running).ask(fresh, asked), other.run(asked), atol=1e-2)


def test_a_sealed_program_is_opened_in_memory_and_on_record(house: House, tmp_path: Path, client: HEClient) -> None:
    mine = house.copy(tmp_path)
    configure(mine, limits={"queries_per_second": 1e6, "burst": 10**6})
    plain = tmp_path / "scores.he"
    plain.write_bytes(PROGRAM.encode())
    owner = mine.installation.open_owner_root([OWNER])
    gate_key = str(mine.installation.stated_recipient("gate"))
    seal(mine.installation, owner, plain, "scores", (gate_key,), actor=ACTOR, opaque=True)
    promote(mine.installation, "scores", 1, actor=ACTOR)
    plain.unlink()
    place(mine, PROGRAM, slots_per_client=SLOTS)
    (mine.installation.paths.home / "scores.he").unlink()
    text = mine.installation.paths.policy.read_text()
    mine.installation.paths.policy.write_text(text.replace('program = "scores.he"\n', ""))
    with serving(mine) as running:
        assert any("scores@1" in line for line in running.said)
        asked = rows(PROGRAM, 2)
        assert np.allclose(gate(running).ask(client, asked), PROGRAM.run(asked), atol=1e-2)
        assert running.terminate() == 0
    records = [decode_record(data, what="it") for _, data in mine.installation.read_ledger().entries()]
    told = [record.kind for record in records if record.subject == "scores@1"]
    assert told[-2:] == ["model.opened", "answer.given"]


def test_the_command_asks_a_real_gate(service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bundle").write_bytes(PROGRAM.bundle.encode())
    (tmp_path / "api.key").write_text(f"{service.house.keys['acme']}\n")
    asked = rows(PROGRAM, 3)
    np.save(tmp_path / "rows.npy", asked)
    bundle = ["--bundle", str(tmp_path / "bundle")]
    assert main(["private", "key", *bundle, "--out", str(tmp_path / "key")]) == 0
    capsys.readouterr()
    url = f"http://{service.host}:{service.port}{PATH}"
    command = ["private", "ask", url, str(tmp_path / "rows.npy"), *bundle, "--secret", str(tmp_path / "key")]
    assert main([*command, "--api-key-file", str(tmp_path / "api.key"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert np.allclose(document["answers"], PROGRAM.run(asked), atol=1e-2)
