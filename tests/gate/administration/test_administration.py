"""A real gate, a real provider and the real commands: from the first sign-in to a client that two people suspend."""

import http.client
import io
import json
import os
import pwd
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from palladion.cli.main import main
from palladion.gate.administration.remote import Remote, Sessions
from palladion.ledger.audit import verify_ledger
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.operators import add_operator, user_identity
from palladion.policy import RoutePolicy
from palladion.registry.rows import Role
from tests.gate.gates import MODEL, House
from tests.gate.service import Service, configure, serving, wait_until
from tests.lifecycle.installations import ACTOR

from .provider import CLIENT_ID, Provider, provided

pytestmark = [pytest.mark.service, pytest.mark.slow]

ME = user_identity(pwd.getpwuid(os.getuid()).pw_name)
STAFF: dict[str, Role] = {"anna": "analyst", "paul": "approver", "adam": "admin", "udo": "auditor"}


@dataclass
class Scene:
    """Everything that runs, and whose configuration folder the commands use."""

    service: Service
    provider: Provider
    url: str
    socket: str
    folder: Path
    house: House

    def run(self, name: str, *arguments: str, code: int = 0) -> Any:
        """What a command of one of the staff prints as JSON."""
        os.environ["XDG_CONFIG_HOME"] = str(self.folder / name)
        self.provider.person = name
        output, complaints = io.StringIO(), io.StringIO()
        with redirect_stdout(output), redirect_stderr(complaints):
            found = main(["operator", *arguments, "--json"])
        assert found == code, (output.getvalue(), complaints.getvalue())
        return json.loads(output.getvalue()) if code == 0 else complaints.getvalue()

    def sign_in(self, name: str, *options: str) -> Any:
        return self.run(name, "sign-in", self.url, "--yes", *options)

    def ledger(self) -> list[Record]:
        reader = self.house.installation.read_ledger()
        return [decode_record(data, what="it") for _, data in reader.entries()]


@pytest.fixture
def scene(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("webbrowser.open", _visit)
    with provided() as provider, _opened(house, tmp_path, provider) as found:
        yield found


@contextmanager
def _opened(house: House, folder: Path, provider: Provider) -> Iterator[Scene]:
    mine = house.copy(folder)
    configure(
        mine,
        RoutePolicy(model=MODEL),
        operations={"listen": "127.0.0.1:0"},
        operators={
            "issuer": provider.url,
            "client_id": CLIENT_ID,
            "socket": "operators.sock",
            "role_claim": "groups",
            "viewers": ["staff"],
        },
    )
    for name, role in STAFF.items():
        add_operator(mine.installation, name, role=role, identity=f"oidc:{provider.url}#{name}", actor=ACTOR)
    add_operator(mine.installation, "me", role="approver", identity=ME, actor=ACTOR)
    with serving(mine) as service:
        (line,) = [line for line in service.said if line.startswith("figures on ")]
        url = line.removeprefix("figures on ").removesuffix("/metrics")
        place = f"unix:{mine.installation.paths.home / 'operators.sock'}"
        yield Scene(service, provider, url, place, folder, mine)
        assert service.terminate() == 0, service.complaints


def _visit(address: str) -> bool:
    def go() -> None:
        with urllib.request.urlopen(address) as page:
            page.read()

    threading.Thread(target=go, daemon=True).start()
    return True


def test_two_people_who_sign_in_by_their_provider_suspend_a_client(scene: Scene) -> None:
    assert scene.sign_in("anna")["role"] == "analyst"
    assert scene.sign_in("paul", "--device")["identity"] == f"oidc:{scene.provider.url}#paul"
    assert scene.provider.refused == []
    assert scene.service.ask().status == 200

    at = ("--at", scene.url)
    proposed = scene.run("anna", "propose", "acme", "--standing", "suspended", "--reason", "copies", *at)
    complaint = scene.run("anna", "decide", proposed["id"], "approve", *at, code=2)
    assert "proposal.decide is not for that role" in complaint
    assert scene.service.ask().status == 200
    decided = scene.run("paul", "decide", proposed["id"], "approve", "--reason", "seen", *at)
    assert decided["verdict"] == "approved"
    # in effect when the command returns
    assert scene.service.ask().problem == "suspended"

    restored = scene.run("paul", "propose", "acme", "--standing", "trusted", "--now", "--reason", "a test", *at)
    assert restored["change"]["standing"] == "trusted"
    assert scene.service.ask().status == 200

    history = scene.run("anna", "clients", "acme", *at)["history"]
    assert [(item["standing"], item["by"]) for item in history[1:]] == [
        ("suspended", f"oidc:{scene.provider.url}#paul"), ("trusted", f"oidc:{scene.provider.url}#paul")
    ]  # fmt: skip
    wait_until(lambda: [record.kind for record in scene.ledger()].count("standing.changed") == 2)
    told = [
        (record.kind, record.actor.partition("#")[2])
        for record in scene.ledger()
        if record.kind.partition(".")[0] in {"operator", "proposal", "standing"} and record.actor != ACTOR
    ]
    assert told == [
        ("operator.signed-in", "anna"),
        ("operator.signed-in", "paul"),
        ("proposal.made", "anna"),
        ("operator.refused", "anna"),
        ("proposal.decided", "paul"),
        ("standing.changed", "paul"),
        ("standing.changed", "paul"),
    ]


def test_a_user_of_the_machine_is_an_operator_without_signing_in(scene: Scene) -> None:
    at = ("--at", scene.socket)
    assert scene.run("anybody", "whoami", *at) == {"identity": ME, "role": "approver", "operator": "me"}
    complaint = scene.run("anybody", "reload", *at, code=2)
    assert "policy.reload is not for that role" in complaint
    assert "nobody was asked" in scene.run("adam", "sign-in", scene.url, code=2)
    assert "at a socket nobody signs in" in scene.run("anybody", "sign-in", scene.socket, code=2)
    # a token counts there too
    scene.sign_in("adam")
    token = Sessions(scene.folder / "adam" / "palladion" / "operators")
    found = json.loads(next(token._folder.iterdir()).read_text())
    assert Remote(scene.socket, found["token"]).get("whoami")["role"] == "admin"


def test_an_admin_reloads_revokes_and_appoints_in_the_running_gate(scene: Scene) -> None:
    scene.sign_in("adam")
    at = ("--at", scene.url)
    configure(scene.house, limits={"queries_per_second": 77.0})
    changes = scene.run("adam", "reload", *at)["changes"]
    assert [change["setting"] for change in changes] == ["limits.queries_per_second"]
    scene.run("adam", "propose", "globex", "--revoke", "--now", "--reason", "over", *at)
    assert scene.service.ask(client="globex").status == 401
    scene.run("adam", "add", "new", "--identity", "user:new", "--role", "viewer", "--reason", "new here", *at)
    assert "needs a second person" in scene.run("adam", "role", "new", "approver", "--reason", "a", *at, code=2)
    proposed = scene.run("adam", "role", "new", "approver", "--reason", "a", "--propose", *at)
    scene.run("anybody", "decide", proposed["id"], "approve", "--at", scene.socket)
    rows = {row["operator"]: row["role"] for row in scene.run("adam", "list", *at)["operators"]}
    assert rows["new"] == "approver"
    # a command of this machine counts at the next request as well
    assert main(["--home", str(scene.house.installation.paths.home), "operator", "revoke", "adam"]) == 2  # the only one
    assert main(["--home", str(scene.house.installation.paths.home), "operator", "role", "new", "admin"]) == 0
    assert main(["--home", str(scene.house.installation.paths.home), "operator", "revoke", "adam"]) == 0
    assert "no operator any more" in scene.run("adam", "whoami", *at, code=2)


def test_a_claim_lets_somebody_in_whom_the_registry_does_not_know(scene: Scene) -> None:
    assert "no operator here" in scene.run("vera", "sign-in", scene.url, "--yes", code=2)
    scene.provider.claims = {"groups": ["staff"]}
    assert scene.sign_in("vera")["role"] == "viewer"
    assert scene.run("vera", "status", "--at", scene.url)["ready"] is True
    assert "ledger.read is not for that role" in scene.run("vera", "ledger", "--at", scene.url, code=2)


def test_an_auditor_reads_a_ledger_that_is_whole(scene: Scene) -> None:
    scene.sign_in("udo")
    found = scene.run("udo", "ledger", "--from", "0", "--count", "5", "--at", scene.url)
    assert found["entries"][0]["record"]["kind"] == "ledger.created"
    assert found["checkpoint"].startswith(scene.house.installation.policy.ledger.origin)
    scene.run("udo", "sign-out", scene.url)
    assert "nobody is signed in" in scene.run("udo", "whoami", "--at", scene.url, code=2)
    installation = scene.house.installation
    verify_ledger(installation.paths.ledger, installation.ledger_key())


def test_a_key_that_the_provider_changes_is_fetched(scene: Scene) -> None:
    scene.sign_in("anna")
    scene.provider.rotate()
    # refused now, and asked for within half a minute; until then, nobody signs in by the new key
    assert _status(scene, scene.provider.token(sub="anna")) == 401


@pytest.mark.parametrize("claims", [{"aud": "gate"}, {"iss": "http://127.0.0.1:1"}, {"exp": 1}, {"iat": 1, "exp": 2}])
def test_a_wrong_token_opens_nothing(scene: Scene, claims: dict[str, Any]) -> None:
    assert _status(scene, scene.provider.token(sub="adam")) == 200
    assert _status(scene, scene.provider.token(sub="adam", **claims)) == 401


def test_the_api_for_clients_does_not_answer_operators(scene: Scene) -> None:
    assert scene.service.get("/v1/whoami", {"authorization": f"Bearer {scene.provider.token(sub='adam')}"}).status in {
        401, 404
    }  # fmt: skip
    connection = socket.create_connection(("127.0.0.1", int(scene.url.rpartition(":")[2])))
    connection.sendall(b"GET /v1/whoami HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert connection.recv(4096).startswith(b"HTTP/1.1 421 ")
    connection.close()


def _status(scene: Scene, token: str) -> int:
    request = urllib.request.Request(f"{scene.url}/v1/whoami", headers={"authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except http.client.HTTPException:
        return 0
