"""Operators at a gate without a transport: real registry, tokens and desk; the ledger is a list, time stands still."""

import asyncio
import json
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
from starlette.applications import Starlette

from palladion.access.jwks import parse_jwks
from palladion.access.tokens import Tokens
from palladion.clock import ManualClock
from palladion.gate.administration.desk import Desk
from palladion.gate.administration.endpoints import Office
from palladion.gate.administration.pages import UNIX, Pages
from palladion.gate.administration.people import People
from palladion.gate.keeper import Keeper
from palladion.ledger.messages import PolicyReloaded
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.operators import oidc_identity
from palladion.policy import ContractPolicy
from palladion.registry.rows import Role
from tests.access import issuing
from tests.gate.gates import House, MemoryJournal
from tests.lifecycle.installations import ACTOR, NOW

ISSUER, CLIENT_ID = "https://login.example.com/staff", "palladion"
SETTINGS: Mapping[str, Any] = {"issuer": ISSUER, "client_id": CLIENT_ID, "socket": "operators.sock"}
# Two of most roles, so that there is a second person for everything.
STAFF: Mapping[str, Role] = {
    "vera": "viewer",
    "anna": "analyst",
    "otto": "analyst",
    "paul": "approver",
    "petra": "approver",
    "adam": "admin",
    "eva": "admin",
    "udo": "auditor",
}


@dataclass(frozen=True)
class Answered:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    document: dict[str, Any]

    @property
    def problem(self) -> str:
        return str(self.document.get("type", "")).removeprefix("urn:palladion:problem:")


class Bench:
    """One gate's desk, and whatever a test wants to look at or turn."""

    def __init__(self, house: House, folder: Path, *, any_host: bool = False, **operators: Any) -> None:
        self.house = house.copy(folder)
        policy = {**SETTINGS, **operators}
        self.installation: Installation = self.house.with_policy(operators=policy, operations={"listen": "127.0.0.1:0"})
        self.installation.policy = msgspec.structs.replace(
            self.installation.policy, contract=(ContractPolicy(client="globex"),)
        )
        self.clock = cast(ManualClock, self.installation.clock)
        self.registry = self.installation.open_registry()
        self.keeper = Keeper(self.registry)
        self.journal = MemoryJournal()
        self.reloads = 0
        self.policy_changes: list[dict[str, Any]] = [{"setting": "limits.burst"}]
        self.policy_error: Exception | None = None
        self.policy_swaps = False
        self.reload_error: Exception | None = None
        self.seconds = 1000.0
        settings = self.installation.policy.operators
        self.tokens = Tokens([settings.as_issuer])
        self.tokens.replace_keys(ISSUER, parse_jwks(issuing.jwks(), algorithms=settings.algorithms))
        self.desk = Desk(
            self.installation,
            keeper=self.keeper,
            ledger=self.journal,
            pseudonyms=self.house.root.derive("pseudonyms"),
            reload=self._reload,
            take_over=self._take_over,
        )
        self._tries = asyncio.Queue[None]()
        self.desk.effect._sleep = lambda _: self._tries.get()
        self.people = People(settings, self.tokens)
        office = Office(self.installation, self.desk, self._status)
        pages = Pages(settings, self.people, office, any_host=any_host, seconds=lambda: self.seconds)
        self.app = Starlette(routes=pages.routes)
        self._runner = asyncio.Runner()

    def close(self) -> None:
        self._runner.run(self.desk.close())
        self._runner.close()
        self.keeper.close()
        self.registry.close()

    def staff(self) -> None:
        """Register one of each name in `STAFF`, without the ledger."""
        with self.registry.write() as records:
            for name, role in STAFF.items():
                records.operators.add(name, role=role, identity=identity(name))

    def token(self, name: str = "adam", *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """An ID token of the provider; claims that are None are left out."""
        now = int(self.clock.now().timestamp())
        said = {"iss": ISSUER, "aud": CLIENT_ID, "sub": name, "iat": now - 5, "exp": now + 300, **claims}
        return issuing.token(header=header, claims=said).decode()

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        by: str | None = None,
        bearer: str | None = None,
        host: str = "127.0.0.1:8711",
        headers: Mapping[str, str] | None = None,
        client: tuple[str, int] = ("127.0.0.1", 4000),
    ) -> Answered:
        """The answer to one request, `by` one of the staff, or with any `bearer`."""
        shown = self.token(by) if by is not None else bearer
        said = {
            "host": host,
            **({"authorization": f"Bearer {shown}"} if shown is not None else {}),
            **({"content-type": "application/json"} if method == "POST" else {}),
            **(headers or {}),
        }
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        target, _, query = path.partition("?")
        scope: dict[str, Any] = {
            "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": f"/v1/{target}",
            "raw_path": b"", "root_path": "", "query_string": query.encode(), "client": client,
            "headers": [(name.encode(), value.encode()) for name, value in said.items()], "server": ("127.0.0.1", 1),
        }  # fmt: skip
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        self._runner.run(self.app(scope, receive, send))
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        content = b"".join(message.get("body", b"") for message in sent[1:])
        return Answered(int(sent[0]["status"]), found, json.loads(content))

    def ask_locally(self, method: str, path: str, body: object = None, *, uid: int) -> Answered:
        """The same through the socket, as the user of that number."""
        return self.ask(method, path, body, host="localhost", client=(UNIX, uid))

    @property
    def records(self) -> list[Record]:
        return self.journal.records

    @property
    def kinds(self) -> list[str]:
        return [record.kind for record in self.records]

    def standing(self, client: str) -> str:
        with self.registry.read() as records:
            return records.clients.named(client, client).standing

    def retry(self) -> None:
        """Let the time pass after which what is not in effect is tried again."""

        async def wait() -> None:
            self._tries.put_nowait(None)
            retrying = self.desk.effect._retrying
            assert retrying is not None
            await retrying

        self._runner.run(wait())

    async def _reload(self) -> None:
        if self.reload_error is not None:
            raise self.reload_error
        self.reloads += 1

    async def _take_over(self, actor: str) -> PolicyReloaded:
        if self.policy_swaps:
            self.installation.policy = msgspec.structs.replace(self.installation.policy)
        if self.policy_error is not None:
            raise self.policy_error
        await self.journal.append([Record("policy.changed", self.clock.now(), actor, "home", {})])
        return PolicyReloaded("d" * 64, self.policy_changes)

    async def _status(self) -> dict[str, Any]:
        return {"ready": True, "routes": [], "clients": [{"client": "acme/acme"}], "clients_total": 1}


def identity(name: str) -> str:
    """How the registry and the ledger know one of the staff."""
    return oidc_identity(ISSUER, name)


__all__ = ["ACTOR", "NOW", "STAFF", "Answered", "Bench", "identity"]
