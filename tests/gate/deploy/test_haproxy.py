"""HAProxy's file: what it says, whether HAProxy takes it, and whether each key has one gate behind the real HAProxy."""

import subprocess
from pathlib import Path

import pytest

from palladion.gate.deploy.front import make_front
from palladion.gate.deploy.haproxy import configuration
from palladion.policy import Policy
from tests.gate.gates import PATH, House

from .plans import CHAT, HERE, policy
from .proxies import Certificate, ask, certificate, check_stickiness, free_port, gates, haproxy, running

WORKERS = ("10.0.0.1:8710", "unix:/run/gate.sock")


@pytest.fixture
def made(tmp_path: Path) -> Certificate:
    return certificate(tmp_path)


def _file(
    of: Policy, made: Certificate, *, workers: tuple[str, ...] = WORKERS, authority: str = "", port: int = 8443
) -> str:
    front = make_front(
        of, listen=f"127.0.0.1:{port}", certificate=str(made.both), key="", workers=workers, authority=authority
    )
    return configuration(front)


def test_only_the_paths_of_routes_go_to_a_gate(made: Certificate) -> None:
    assert f"deny deny_status 404 if !{{ path {PATH} }} !{{ path_beg {PATH}/ }}\n" in _file(policy(HERE), made)


def test_a_stream_may_take_as_long_as_its_route_allows(made: Certificate) -> None:
    assert "    timeout server 615s\n" in _file(policy(CHAT), made)


def test_clients_cannot_say_what_only_a_proxy_may(made: Certificate) -> None:
    text = _file(policy(HERE), made)
    assert text.index("del-header x-real-ip") < text.index("set-header x-real-ip %[src]")
    assert "    http-request del-header x-user\n" in text


@pytest.mark.service
@pytest.mark.parametrize("tls", [False, True])
def test_the_real_haproxy_takes_it_and_warns_of_nothing(made: Certificate, tmp_path: Path, tls: bool) -> None:
    file = tmp_path / "haproxy.cfg"
    of = policy(HERE, tls_certificate="c", tls_key="k") if tls else policy()
    file.write_text(
        _file(of, made, workers=("10.0.0.1:1",) if tls else WORKERS, authority=str(made.chain) if tls else "")
    )
    checked = subprocess.run([haproxy(), "-c", "-f", file], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.service
@pytest.mark.slow
def test_each_key_has_one_gate_behind_the_real_haproxy(house: House, tmp_path: Path, made: Certificate) -> None:
    with gates(house, tmp_path / "gates") as services:
        port, file = free_port(), tmp_path / "haproxy.cfg"
        workers = tuple(f"127.0.0.1:{service.port}" for service in services)
        file.write_text(_file(policy(HERE), made, workers=workers, port=port))
        with running([haproxy(), "-db", "-f", str(file)], port):
            smuggled = {"x-api-key": "pk_live_wrong", "x_user": "somebody"}
            assert ask(port, made.context, smuggled).status == 403
            check_stickiness(services, port, made.context)
