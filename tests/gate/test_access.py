"""Access policies and proxies at the gate's door: what they let through, asked through the application itself."""

import asyncio
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from typing import Any

import msgspec

from palladion.access.cedar import read_policies
from palladion.access.certificates import Certificate
from palladion.gate.app import App
from palladion.gate.callers import SPIFFE
from palladion.gate.directory import Directory
from palladion.gate.hops import SCOPE, Hop, Hops
from palladion.policy import ProxyPolicy
from tests.gate.rolls import Roll

from .gates import MODEL, PATH, ROW, Bench, House, _roll, open_gate, problem

EDGE, CLIENT = "spiffe://example.org/edge", "spiffe://example.org/scoring"
HASH = "ab" * 32
PROXY = {
    "identities": (EDGE,),
    "certificate_header": "x-forwarded-client-cert",
    "user_header": "x-end-user",
    "address_header": "x-real-ip",
}
TOLD = {"x-forwarded-client-cert": f"By={EDGE};Hash={HASH};URI={CLIENT}", "x-real-ip": "192.0.2.7"}


def _with(bench: Bench, policies: str = "", **roll: Any) -> None:
    """Another directory: with access policies, or with identities."""
    access = read_policies(policies.encode(), "access.cedar") if policies else None
    directory = Directory(bench.house.root.derive("client-key-pepper"), access=access)
    known = _roll(bench.house)
    directory.load(Roll(known.keys, known.callers, **roll))
    bench.gate.stages.directory = directory


def test_what_the_policies_do_not_permit_is_forbidden_and_counted(house: House) -> None:
    bench = open_gate(house)
    _with(bench, f'permit(principal == Client::"acme/acme", action == Action::"ask", resource in Model::"{MODEL}");')
    assert bench.ask().status == 200
    refused = [bench.ask(client="globex"), bench.ask(method="GET")]
    assert [problem(response) for response in refused] == ["forbidden", "forbidden"]
    assert bench.gate.stages.refusals == {
        (house.ids["globex"], "forbidden"): 1,
        (house.ids["acme"], "forbidden"): 1,
    }


def test_a_description_can_be_all_that_is_permitted(house: House) -> None:
    bench = open_gate(house)
    _with(bench, f'permit(principal, action == Action::"describe", resource == Route::"{PATH}");')
    assert bench.ask(method="GET").status == 200
    assert problem(bench.ask()) == "forbidden"


def test_what_a_proxy_tells_links_the_client_for_the_watch(house: House) -> None:
    bench = open_gate(house)
    hops = Hops(
        ProxyPolicy(
            address_header="x-real-ip", payment_header="x-payment", device_header="x-device", tls_header="x-ja4"
        )
    )
    told = {b"x-payment": b"card_7f3a", b"x-device": b"phone", b"x-ja4": b"t13d"}
    peer, _ = hops.peer(Hop(local=True), told, None)
    request = replace(bench.request(), peer=peer)
    caller = next(iter(bench.gate.stages.directory.callers.values()))
    asker = bench.gate.stages.asker(caller, request)
    assert (asker.payment, asker.device, asker.tls) == ("card_7f3a", "phone", "t13d")


def _exchange(bench: Bench, hop: Hop | None, headers: Mapping[str, str] | list[tuple[str, str]]) -> tuple[int, bytes]:
    sent: list[MutableMapping[str, Any]] = []
    body = msgspec.json.encode({"inputs": (ROW,)})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "client": ("127.0.0.9", 4711),
        "headers": [
            (name.encode(), value.encode())
            for name, value in (headers if isinstance(headers, list) else headers.items())
        ]
        + [(b"content-length", str(len(body)).encode())],
        **({} if hop is None else {SCOPE: hop}),
    }
    asyncio.run(App(bench.gate, ready=lambda: True)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def test_a_client_is_known_by_what_a_proxy_says_and_asks_from_its_own_address(house: House) -> None:
    bench = open_gate(house, proxy=PROXY)
    _with(bench, identities={(SPIFFE, CLIENT): house.ids["acme"]})
    status, _ = _exchange(bench, Hop(Certificate("00" * 32, EDGE)), TOLD)
    assert status == 200
    ((asker, *_),) = bench.watch.asked
    assert (asker.client, asker.address) == (house.ids["acme"], "192.0.2.7")


def test_the_same_words_from_anybody_else_are_nobodys(house: House) -> None:
    bench = open_gate(house, proxy=PROXY)
    _with(bench, identities={(SPIFFE, CLIENT): house.ids["acme"]})
    for hop in (None, Hop(Certificate("00" * 32, f"{EDGE}-2"))):
        assert _exchange(bench, hop, TOLD)[0] == 401
    key = {"authorization": f"Bearer {house.keys['acme']}"}
    assert _exchange(bench, None, {**key, **TOLD})[0] == 200
    ((asker, *_),) = bench.watch.asked
    assert asker.address == "127.0.0.9"


def test_a_header_that_a_proxy_is_believed_in_comes_once(house: House) -> None:
    status, body = _exchange(open_gate(house, proxy=PROXY), Hop(local=True), [("x-end-user", "a"), ("x-end-user", "b")])
    assert status == 400
    assert b"x-end-user comes twice" in body
