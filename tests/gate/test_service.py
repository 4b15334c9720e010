"""The gate as it runs: real processes, real HTTP from several addresses, and every way in which one can end."""

import http.client
import resource
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.access.pseudonyms import network_pseudonym
from palladion.cli.main import main
from palladion.ledger.audit import verify_ledger
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.clients import add_client, set_standing
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version
from palladion.lifecycle.promote import promote
from palladion.lifecycle.protect import protect
from palladion.policy import RoutePolicy
from palladion.redteam.pool import Pool
from palladion.redteam.thieves import thief
from palladion.redteam.traffic import honest_clients
from tests.cli import session
from tests.lifecycle.installations import ACTOR, OWNER, kinds
from tests.models import write

from .certificates import self_made
from .gates import MODEL, PATH, ROW, House, add_calibration, tiny_calibration
from .service import WAIT_SECONDS_MAX, Answered, Service, ask, configure, serving, wait_until

pytestmark = pytest.mark.service

ENFORCE = RoutePolicy(model=MODEL, mode="enforce")


@pytest.fixture
def mine(house: House, tmp_path: Path) -> House:
    """A house whose policy serves one enforcing route."""
    copied = house.copy(tmp_path)
    configure(copied, ENFORCE)
    return copied


@pytest.fixture(scope="module")
def service(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the tests that leave it as it was."""
    copied = house.copy(tmp_path_factory.mktemp("service"))
    configure(copied, ENFORCE)
    with serving(copied) as running:
        yield running


def _records(installation: Installation) -> list[Record]:
    return [decode_record(data, what="it") for _, data in installation.read_ledger().entries()]


def _verify(house: House) -> int:
    return verify_ledger(house.installation.paths.ledger, house.installation.ledger_key()).size


def _at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """The results of `work(0)` to `work(count - 1)`, each in a thread, all let go at the same moment."""
    barrier, results = threading.Barrier(count), [None] * count

    def run(number: int) -> None:
        barrier.wait(WAIT_SECONDS_MAX)
        results[number] = work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS_MAX)
    return results


# --- a day like any other


def test_clients_are_answered_over_http_from_wherever_they_are(service: Service) -> None:
    answers = [service.ask(client=client, address=f"127.0.0.{n}") for n, client in enumerate(("acme", "globex"), 2)]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].document == answers[1].document
    assert answers[0].headers["cache-control"] == "no-store"
    assert "server" not in answers[0].headers


def test_health_needs_no_key_and_everything_else_does(service: Service) -> None:
    assert [service.get(f"/health/{name}").status for name in ("live", "ready")] == [200, 200]
    strangers = [service.get(path) for path in (PATH, "/", "/docs", "/metrics", "/v1/models")]
    assert {answer.status for answer in strangers} == {401}
    assert len({answer.body for answer in strangers}) == 1


def test_one_connection_carries_many_requests(service: Service) -> None:
    connection = service.connect()
    key = service.house.keys["acme"]
    statuses = [ask(connection, key, rows).status for rows in ((ROW,), "no rows", (ROW, ROW))]
    connection.close()
    assert statuses == [200, 422, 200]


def test_a_customer_can_have_it_proved_what_was_asked_and_answered(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answered = service.ask([ROW])
    asked, got = tmp_path / "asked.json", tmp_path / "answered.json"
    asked.write_bytes(msgspec.json.encode({"inputs": [ROW]}))
    got.write_bytes(answered.body)
    receipt = answered.headers["palladion-receipt"]
    index = receipt.rpartition("/")[2]
    home = service.house.installation.paths.home
    wait_until(lambda: _published(service.house) > int(index))
    assert main(["--home", str(home), "ledger", "prove", receipt, "--disclose", "--out", str(tmp_path)]) == 0
    # what the customer does, with what he was given, elsewhere
    entry, proof = tmp_path / f"entry-{index}.json", tmp_path / f"entry-{index}.tlog-proof"
    key = str(service.house.installation.ledger_key())
    check = ["ledger", "check", str(proof), str(entry), "--key", key, "--request", str(asked), "--answer"]
    assert main([*check, str(got)]) == 0
    assert f"{got} is the answer that it is of" in capsys.readouterr().out
    assert main([*check, str(asked)]) == 1
    assert "is not what is on record" in capsys.readouterr().err


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /health/live HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
    ],
    ids=["upgrade", "connect", "tls", "smuggling", "endless head"],
)
def test_what_is_no_request_harms_nobody_and_fills_no_log(service: Service, request_bytes: bytes) -> None:
    stranger = socket.create_connection((service.host, service.port), WAIT_SECONDS_MAX)
    with stranger, suppress(ConnectionError):
        stranger.sendall(request_bytes)
        stranger.shutdown(socket.SHUT_WR)
        stranger.recv(1000)
    assert service.get("/health/ready").status == 200
    assert service.complaints == ""


def test_a_stranger_is_answered_before_its_body_is_asked_for(service: Service) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1000000\r\n\r\n"
    with socket.create_connection((service.host, service.port), WAIT_SECONDS_MAX) as stranger:
        stranger.sendall(head)
        assert stranger.recv(100).startswith(b"HTTP/1.1 401 ")


def test_who_sends_a_long_body_with_a_wrong_key_still_hears_why(service: Service) -> None:
    right = service.house.keys["acme"]
    wrong = right[:-1] + ("1" if right.endswith("0") else "0")
    assert service.ask([[0.123456789] * 4] * 20_000, key=wrong).problem == "unauthenticated"


def test_a_second_server_is_refused_in_a_sentence(service: Service) -> None:
    command = [sys.executable, "-m", "palladion", "--home", str(service.house.installation.paths.home), "serve"]
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_SECONDS_MAX)
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr.startswith("palladion: error: a gate is running here already\n")
    assert service.get("/health/ready").status == 200


def test_commands_and_the_watch_speak_to_the_running_gate(service: Service) -> None:
    text = (Path(__file__).parent / "sessions" / "serving.txt").read_text(encoding="utf-8")
    service.ask(rows=[ROW, ROW])
    session.run(session.parse(text), service.house.installation.paths.home)


# --- commands while it runs


def test_a_client_that_is_added_is_let_in_at_once(service: Service) -> None:
    _, key, _ = add_client(
        service.house.installation, "new", "new", models=[], environment="live", expires=None, actor=ACTOR
    )
    assert service.ask(key=key.text).status == 200


def test_promoting_swaps_live_and_fails_no_request(mine: House) -> None:
    with serving(mine) as service:
        stop, seen = threading.Event(), list[Answered]()

        def keep_asking() -> None:
            connection = service.connect("127.0.0.3")
            while not stop.is_set():
                seen.append(ask(connection, mine.keys["acme"]))
            connection.close()

        asking = threading.Thread(target=keep_asking)
        asking.start()
        wait_until(lambda: len(seen) > 5)
        promote(mine.installation, MODEL, 2, actor=ACTOR)
        after = service.ask(client="globex")
        wait_until(lambda: bool(seen) and seen[-1].document["version"] == 2)
        stop.set()
        asking.join(WAIT_SECONDS_MAX)
        assert service.wait_for("answers on").startswith(f"{MODEL}@2 answers on {PATH} now")
    assert after.document["version"] == 2
    assert {answer.status for answer in seen} == {200}
    versions = [answer.document["version"] for answer in seen]
    assert versions == sorted(versions)


# --- limits


def test_two_hundred_requests_at_once_are_never_over_admitted(mine: House) -> None:
    configure(mine, limits={"queries_per_second": 0.001, "burst": 20})
    with serving(mine) as service:
        answers = _at_once(200, lambda number: service.ask(address=f"127.0.{number % 7}.{1 + number}"))
        assert service.terminate() == 0
    assert sorted(answer.status for answer in answers) == [200] * 20 + [429] * 180
    assert sum(record.kind == "answer.given" for record in _records(mine.installation)) == 20


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "unfinished TLS"])
def test_strangers_cannot_use_up_what_the_ledger_needs(mine: House, tmp_path: Path, tls: bool) -> None:
    context = None
    if tls:
        certificate = self_made(tmp_path, "127.0.0.1")
        context = ssl.create_default_context(cafile=str(certificate))
        configure(mine, gate={"tls_certificate": str(certificate), "tls_key": str(tmp_path / "key.pem")})
    with serving(mine, descriptors=256) as service:
        known = service.connect(context=context)
        assert ask(known, mine.keys["acme"]).status == 200
        strangers = [socket.create_connection((service.host, service.port), WAIT_SECONDS_MAX) for _ in range(300)]
        # one checkpoint after the other has to open its files meanwhile
        entries = [_published(mine)]
        for _ in range(3):
            assert ask(known, mine.keys["acme"]).status == 200
            wait_until(lambda: _published(mine) > entries[-1])
            entries.append(_published(mine))
        for stranger in strangers:
            stranger.close()
        known.close()
        wait_until(lambda: _is_ready(service, context))


def _published(house: House) -> int:
    return house.installation.read_ledger().size


def _is_ready(service: Service, context: ssl.SSLContext | None) -> bool:
    connection = service.connect(context=context)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except (ConnectionError, ssl.SSLError):
        return False  # its room is still taken by those who have just gone
    finally:
        connection.close()


# --- how it ends


def _calibrate(house: House) -> None:
    add_calibration(house.installation, tiny_calibration(find_version(house.installation, MODEL).content_digest))


def _suspicion(house: House) -> dict[str, int]:
    """Queries of each client that the running gate knows of."""
    status = house.installation.server_status()
    assert status is not None
    return {item["client"]: item["models"][0]["queries"] for item in status["clients"] if item["models"]}


def test_suspicion_and_limits_survive_a_stop_in_good_order(mine: House) -> None:
    _calibrate(mine)
    configure(mine, limits={"queries_per_second": 0.001, "burst": 4})
    with serving(mine) as service:
        assert [service.ask(rows=[[n, 0, 0, 0]]).status for n in range(5)] == [200, 200, 200, 200, 429]
        assert service.ask(client="globex").status == 200
        assert service.terminate() == 0
        assert service.complaints == ""
    with serving(mine) as service:
        assert _suspicion(mine) == {"acme/acme": 4, "globex/globex": 1}
        assert service.ask().status == 429
        assert service.ask(client="globex").status == 200
        assert service.terminate() == 0
    refused = [record.details for record in _records(mine.installation) if record.kind == "answer.refused"]
    network = network_pseudonym(mine.root.derive("pseudonyms"), "127.0.0.1")
    assert refused == [{"reason": "rate-limited", "requests": 1, "network": [network]}] * 2


def test_after_a_crash_standings_hold_and_a_second_of_suspicion_is_lost_at_most(mine: House) -> None:
    _calibrate(mine)
    with serving(mine) as service:
        service.ask(rows=[[n, 0, 0, 0] for n in range(7)])
        set_standing(mine.installation, "globex", "globex", "suspended", reason="for the test", actor=ACTOR)
        wait_until(lambda: mine.ids["acme"] in _saved(mine))  # written every second
        service.kill()
    with serving(mine) as service:
        assert _suspicion(mine) == {"acme/acme": 7}
        assert service.ask(client="globex").problem == "suspended"
        assert service.ask().status == 200


def _saved(house: House) -> set[str]:
    with house.installation.open_registry() as registry, registry.read() as records:
        found: set[str] = set()
        for row in records.calibrations.all():
            found |= records.gate_states.load(f"suspicion:{row.model}:{row.digest[:16]}").keys()
        return found


def test_a_crash_under_load_loses_no_record_of_an_answer_that_left(mine: House) -> None:
    configure(mine, limits={"queries_per_second": 1e6, "burst": 1_000_000})
    acknowledged: list[tuple[int, str]] = []

    def ask_until_it_is_gone(connection: http.client.HTTPConnection) -> None:
        with suppress(OSError, http.client.HTTPException):
            while True:
                found = ask(connection, mine.keys["acme"])
                index = int(found.headers["palladion-receipt"].rpartition("/")[2])
                acknowledged.append((index, found.headers["palladion-request"]))

    with serving(mine) as service:
        connections = [service.connect(f"127.0.0.{number}") for number in range(10, 18)]
        threads = [threading.Thread(target=ask_until_it_is_gone, args=(item,)) for item in connections]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(acknowledged) > 200)
        service.kill()
        for thread in threads:
            thread.join(WAIT_SECONDS_MAX)
    with serving(mine) as service:
        assert service.ask().status == 200
        assert service.terminate() == 0
    records = _records(mine.installation)
    assert len(acknowledged) > 200
    lost = [item for item in acknowledged if records[item[0]].details.get("request") != item[1]]
    assert lost == []
    assert _verify(mine) == len(records)
    assert main(["--home", str(mine.installation.paths.home), "ledger", "verify"]) == 0


def test_when_the_disk_takes_nothing_more_nothing_leaves(mine: House) -> None:
    with serving(mine) as service:
        assert service.ask().status == 200
        # from now on every write that would make a file longer fails, as on a full disk
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        refused = [service.ask() for _ in range(3)]
        assert {(answer.status, answer.problem) for answer in refused} == {(503, "unrecorded")}
        assert all(b"probabilities" not in answer.body for answer in refused)
        assert (service.get("/health/ready").status, service.get("/health/live").status) == (503, 200)
        # and it stays so when there is room again: what was half written has to be looked at first
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert service.ask().problem == "unrecorded"
        assert service.terminate() == 2
        assert "nothing is answered any more" in service.complaints
    with serving(mine) as service:
        assert service.ask().status == 200
    assert _verify(mine) > 0


def test_a_request_that_is_being_sent_is_answered_before_the_end(mine: House) -> None:
    body = msgspec.json.encode({"inputs": [ROW]})
    with serving(mine) as service:
        connection = service.connect()
        connection.putrequest("POST", PATH)
        for name, value in (("x-api-key", mine.keys["acme"]), ("content-length", str(len(body)))):
            connection.putheader(name, value)
        connection.endheaders(body[:5])
        # one that is answered on another connection shows that this one has been read
        assert service.ask(client="globex").status == 200
        service.process.terminate()
        wait_until(lambda: not _listens(service))
        connection.send(body[5:])
        response = connection.getresponse()
        assert (response.status, response.getheader("connection")) == (200, "close")
        receipt = response.getheader("palladion-receipt")
        connection.close()
        assert service.process.wait(WAIT_SECONDS_MAX) == 0
    records = _records(mine.installation)
    assert receipt is not None
    assert records[int(receipt.rpartition("/")[2])].kind == "answer.given"
    assert records[-1].kind == "gate.stopped"


def _listens(service: Service) -> bool:
    with suppress(OSError), socket.create_connection((service.host, service.port), WAIT_SECONDS_MAX):
        return True
    return False


# --- TLS


def test_over_tls_an_answer_can_be_had_and_in_plain_text_none(mine: House) -> None:
    home = mine.installation.paths.home
    certificate = self_made(home, "127.0.0.1")
    configure(mine, gate={"tls_certificate": "certificate.pem", "tls_key": "key.pem"})
    context = ssl.create_default_context(cafile=str(certificate))
    with serving(mine) as service:
        assert service.said[-1].startswith("serving on https://127.0.0.1:")
        assert service.ask(context=context).status == 200
        with pytest.raises(OSError, match=r".*"):
            service.ask()
        with pytest.raises(ssl.SSLCertVerificationError):
            service.ask(context=ssl.create_default_context())
        assert service.ask(context=context).status == 200
        assert service.terminate() == 0
        assert service.complaints == ""


def test_plain_text_beyond_the_loopback_is_refused(mine: House, capsys: pytest.CaptureFixture[str]) -> None:
    configure(mine, gate={"listen": "0.0.0.0:0"})
    assert main(["--home", str(mine.installation.paths.home), "serve"]) == 2
    error = capsys.readouterr().err
    assert "gate.listen: 0.0.0.0:0 is not the loopback, and API keys would cross the network in plain text" in error
    assert "hint: set gate.tls_certificate" in error


# --- a thief


def _digits(folder: Path) -> Pool:
    """A classifier of handwritten digits as ONNX, rows that honest clients send as NPZ, and these as a pool."""
    datasets = pytest.importorskip("sklearn.datasets")
    linear_model = pytest.importorskip("sklearn.linear_model")
    skl2onnx = pytest.importorskip("skl2onnx")
    found = datasets.load_digits()
    rows, labels = found.data.astype(np.float32), found.target.astype(np.int64)
    model = linear_model.LogisticRegression(max_iter=300, C=0.01).fit(rows[:900], labels[:900])
    kind = skl2onnx.common.data_types.FloatTensorType([None, 64])
    graph = skl2onnx.convert_sklearn(model, initial_types=[("x", kind)], options={"zipmap": False}, target_opset=17)
    write(folder / "digits.onnx", graph.SerializeToString())
    np.savez(folder / "data.npz", x=rows[900:], y=labels[900:])
    return Pool(rows[900:], labels[900:], (8, 8))


def test_a_thief_is_suspended_and_honest_clients_are_not_disturbed(mine: House, tmp_path: Path) -> None:
    pool, generator = _digits(tmp_path), np.random.default_rng(5)
    home = ["--home", str(mine.installation.paths.home)]
    owner = mine.installation.open_owner_root([OWNER])
    protect(mine.installation, owner, tmp_path / "digits.onnx", "digits", actor=ACTOR)
    route = RoutePolicy(model="digits", mode="enforce")
    # rates that 200 calibration clients support
    rates = {"alpha_watched": 0.02, "alpha_suspected": 0.01, "alpha_campaign": 0.05, "simulated_may_enforce": True}
    configure(mine, route, limits={"queries_per_second": 1e6, "burst": 1_000_000}, watch=rates)
    keys = {}
    accounts = [*honest_clients(pool, 6, 40, generator), thief("foreign", pool, 60, generator)]
    for account in accounts:
        _, key, _ = add_client(
            mine.installation, account.name, account.name, models=[], environment="live", expires=None, actor=ACTOR
        )
        keys[account.name] = key.text
    with serving(mine) as service:
        calibrate = ["watch", "calibrate", "digits", "--validation", str(tmp_path / "data.npz"), "--image", "8x8"]
        assert main([*home, *calibrate, "--clients", "260", "--organisations", "30", "--horizon", "64"]) == 0
        service.wait_for("digits@1 answers on")
        statuses = {
            account.name: [
                service.ask(
                    account.rows[start : start + 4].tolist(),
                    key=keys[account.name],
                    path=route.route,
                    address=f"127.0.0.{20 + number}",
                ).status
                for start in range(0, len(account.rows), 4)
            ]
            for number, account in enumerate(accounts)
        }
        status = mine.installation.server_status()
        assert main([*home, "watch", "explain", accounts[-1].name]) == 0
        assert service.terminate() == 0
    assert status is not None
    standings = {item["client"].partition("/")[2]: item["standing"] for item in status["clients"]}
    *honest, stolen = accounts
    assert {code for account in honest for code in statuses[account.name]} == {200}
    assert {standings[account.name] for account in honest} <= {"trusted", "watched"}
    assert (standings[stolen.name], statuses[stolen.name][-1]) == ("suspended", 403)
    assert status["clients"][0]["client"].partition("/")[2] == stolen.name
    with mine.installation.open_registry() as registry, registry.read() as records:
        assert [case.title for case in records.incidents.all()] == [f"suspended: {stolen.name}/{stolen.name}"]
    assert "incident.opened" in kinds(mine.installation)
