"""What a proxy in front of gates has to know, and what cannot be put behind one."""

from typing import Any

import msgspec
import pytest
from msgspec import structs

from palladion.errors import PolicyError
from palladion.gate.deploy.front import WORKERS_MAX, Front, make_front, parse_address
from palladion.gate.deploy.plan import Address
from palladion.policy import Policy, ProxyPolicy
from palladion.policy.encrypted import EncryptedPolicy

from .plans import CHAT, HERE, policy


def _front(of: Policy, **changes: Any) -> Front:
    known = {"listen": "0.0.0.0:443", "certificate": "c.pem", "key": "k.pem", "workers": ("10.0.0.1:8710",)}
    return make_front(of, **{**known, **changes})


def test_gates_are_named_by_address_or_socket() -> None:
    front = _front(policy(HERE), workers=("10.0.0.1:8710", "unix:/run/gate.sock", "[fd00::1]:1"))
    assert [str(worker) for worker in front.workers] == ["10.0.0.1:8710", "/run/gate.sock", "fd00::1:1"]


def test_without_any_it_is_this_policys_gate() -> None:
    assert [worker.address for worker in _front(policy(HERE), workers=()).workers] == [Address("0.0.0.0", 8710)]


def test_what_only_a_proxy_may_say_is_removed() -> None:
    assert _front(policy(HERE)).removed == ["x-user", "x-real-ip"]
    told = ProxyPolicy(payment_header="x-payment", device_header="x-device", tls_header="x-ja4", asn_header="x-asn")
    assert _front(structs.replace(policy(HERE), proxy=told)).removed == ["x-payment", "x-device", "x-ja4", "x-asn"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": ("a:1", "a:1")}, "named twice"),
        ({"workers": tuple(f"a:{n}" for n in range(1, WORKERS_MAX + 2))}, "at most 64"),
        ({"workers": ("a:0",)}, "is no HOST:PORT"),
        ({"workers": ("a",)}, "is no HOST:PORT"),
        ({"workers": ("unix:/a b\nserver x",)}, "cannot be written"),
        ({"listen": "a:70000"}, "is no HOST:PORT"),
        ({"listen": "a b:1"}, "is no HOST:PORT"),
        ({"certificate": "a\n    bind :80"}, "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        _front(policy(HERE), **changes)


def test_gates_that_would_take_all_clients_for_one_are_refused() -> None:
    with pytest.raises(PolicyError, match="judged as one"):
        _front(policy(HERE, behind_proxy=False))
    assert _front(policy(HERE, behind_proxy=False), workers=("unix:/run/gate.sock",))


def test_gates_with_tls_need_somebody_who_vouches_for_them() -> None:
    with pytest.raises(PolicyError, match="nobody vouches"):
        _front(policy(HERE, tls_certificate="c", tls_key="k"))
    assert _front(policy(HERE, tls_certificate="c", tls_key="k"), authority="ca.pem").authority == "ca.pem"


def test_without_routes_there_is_nothing_to_let_through() -> None:
    with pytest.raises(PolicyError, match="nothing would be let through"):
        _front(Policy())
    programs = (EncryptedPolicy(model="scores"),)
    assert _front(msgspec.structs.replace(policy(), route=(), encrypted=programs)).paths == ["/v1/encrypted/scores"]


def test_paths_are_those_of_the_routes() -> None:
    assert _front(policy(HERE)).paths == ["/v1/models/fraud/predict"]
    assert "/v1/embeddings" in _front(policy(CHAT)).paths


@pytest.mark.parametrize(("text", "host", "port"), [("a.b:1", "a.b", 1), ("[::1]:65535", "::1", 65535)])
def test_addresses_are_read(text: str, host: str, port: int) -> None:
    assert parse_address(text) == Address(host, port)
