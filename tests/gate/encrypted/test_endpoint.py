"""What is kept of bodies before anything of them is known."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from palladion.gate.encrypted.endpoint import KeysPage, QueryPage
from palladion.gate.encrypted.routes import EncryptedRoutes
from palladion.gate.encrypted.workers import Keys, RefusedError, WorkerError, Workers
from palladion.gate.problems import Problem
from palladion.gate.requests import Request
from palladion.private.homomorphic.client import HEClient
from palladion.private.homomorphic.envelope import MEDIA_TYPE, Envelope
from palladion.private.homomorphic.leakage import slots_carried
from tests.gate.encrypted.programs import PATH, place
from tests.gate.encrypted.test_routes import PROGRAM, reread
from tests.gate.gates import House, open_gate
from tests.private.homomorphic.programs import needs_seal, rows


class Sender:
    """Clients whose bodies never come, unless they are told to end."""

    def __init__(self, house: House, page: KeysPage | QueryPage) -> None:
        self.house, self.page = house, page
        self.waiting = 0
        self._ends = asyncio.Event()

    def begin(self, client: str, length: int | None) -> "asyncio.Task[None]":
        headers = {b"content-type": MEDIA_TYPE.encode(), b"authorization": f"Bearer {self.house.keys[client]}".encode()}
        if length is not None:
            headers[b"content-length"] = str(length).encode()

        async def body() -> bytes:
            self.waiting += 1
            await self._ends.wait()
            return b"no envelope"

        async def go() -> None:
            request = Request("POST", "/", headers, body)
            await self.page.answer(self.page.stages.identify(request), request)

        return asyncio.get_running_loop().create_task(go())

    async def refused(self, client: str, length: int | None) -> str:
        """The kind of the problem that a client is told before its body is read."""
        before = self.waiting
        with pytest.raises(Problem) as caught:
            await asyncio.wait_for(self.begin(client, length), 10)
        assert self.waiting == before
        return caught.value.kind

    async def end(self, *tasks: "asyncio.Task[None]") -> None:
        self._ends.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(item, Problem) and item.kind for item in found] == ["bad-input"] * len(tasks)


@pytest.fixture
def mine(house: House, tmp_path: Path) -> House:
    needs_seal()
    made = house.copy(tmp_path)
    place(made, PROGRAM)
    return made


async def turn(tasks: int) -> None:
    """Let so many begin: none of them waits for anything before its body."""
    for _ in range(tasks + 1):
        await asyncio.sleep(0)


def test_a_client_has_two_of_the_largest_queries_in_memory_and_pays_before_them(mine: House) -> None:
    async def go() -> None:
        bench = open_gate(mine)
        routes = EncryptedRoutes(reread(mine), bench.gate.stages)
        page = routes.endpoints[f"{PATH}/query"]
        assert isinstance(page, QueryPage)
        sender = Sender(mine, page)
        small = sender.begin("acme", 100)
        large = [sender.begin("acme", page.body_bytes_max - 100), sender.begin("acme", None)]
        await turn(3)
        assert sender.waiting == 3
        assert await sender.refused("acme", 1) == "busy"
        other = sender.begin("globex", page.body_bytes_max)
        await turn(1)
        assert sender.waiting == 4
        # each has paid, though nothing of a body has come
        assert len(bench.gate.stages.limits.rates._clients.by_key) == 2
        await sender.end(small, *large, other)
        await routes.close()

    asyncio.run(go())


def test_a_client_sends_one_set_of_keys_at_a_time_and_others_still_do(mine: House) -> None:
    async def go() -> None:
        routes = EncryptedRoutes(reread(mine), open_gate(mine).gate.stages)
        page = routes.endpoints[f"{PATH}/keys"]
        assert isinstance(page, KeysPage)
        sender = Sender(mine, page)
        first = sender.begin("acme", None)
        await turn(1)
        assert await sender.refused("acme", None) == "busy"
        second = sender.begin("globex", None)
        await turn(1)
        assert sender.waiting == 2
        await sender.end(first, second)
        await routes.close()

    asyncio.run(go())


PER_QUERY = slots_carried(PROGRAM.bundle, 1, by_columns=False)


@pytest.mark.parametrize(
    ("outcome", "begins", "told"),
    [
        (WorkerError("did not start"), False, "upstream-failed"),
        (TimeoutError(), False, "upstream-timeout"),
        (asyncio.CancelledError(), False, ""),
        (WorkerError("died"), True, "upstream-failed"),
        (TimeoutError(), True, "upstream-timeout"),
        (asyncio.CancelledError(), True, ""),
        (RefusedError("no"), True, "bad-input"),
        (Problem("unrecorded"), True, "unrecorded"),
    ],
)
def test_what_a_worker_has_begun_is_paid_for_and_nothing_else(
    mine: House, monkeypatch: pytest.MonkeyPatch, outcome: BaseException, begins: bool, told: str
) -> None:
    async def evaluate(_: Workers, keys: Keys, form: str, parts: object, *, begun: Callable[[], None]) -> list[bytes]:
        if begins:
            begun()
        raise outcome

    monkeypatch.setattr(Workers, "evaluate", evaluate)
    asking = HEClient(PROGRAM.bundle)
    body = Envelope("query", PROGRAM.bundle.id, "a" * 64, "interleaved", tuple(asking.encrypt(rows(PROGRAM, 1))))

    async def sent() -> bytes:
        return body.encode()

    async def go() -> None:
        bench = open_gate(mine, limits={"burst": 10_000, "queries_per_day": 10_000})
        routes = EncryptedRoutes(reread(mine), bench.gate.stages)
        page = routes.endpoints[f"{PATH}/query"]
        assert isinstance(page, QueryPage)
        headers = {b"content-type": MEDIA_TYPE.encode(), b"authorization": f"Bearer {mine.keys['acme']}".encode()}
        request = Request("POST", "/", headers, sent)
        caller = page.stages.identify(request)
        routes._shelf.put(caller.id, PROGRAM.bundle.id, Keys("a" * 64, b"r", b"s"))
        with pytest.raises(BaseException) as caught:
            await page.answer(caller, request)
        assert (caught.value.kind if isinstance(caught.value, Problem) else "") == told
        assert await routes._slots_file().spent("name:scores") == (PER_QUERY if begins else 0)
        day = bench.gate.stages.limits.budgets.spent(caller.id)[1].queries
        assert day == (PROGRAM.bundle.layout.rows if begins else 0)
        await routes.close()

    asyncio.run(go())
