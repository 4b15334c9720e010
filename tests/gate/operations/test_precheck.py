"""What a policy is refused for before anybody serves it."""

from pathlib import Path
from typing import Any

import pytest

from palladion.errors import PolicyError
from palladion.gate.operations.precheck import check_servable
from palladion.lifecycle.installation import Installation
from palladion.policy import parse_policy
from tests.gate.gates import MODEL, House

ISSUER = '[[issuer]]\nurl = "https://login.example"\naudience = "gate"\n'
PORT = '[operations]\nlisten = "127.0.0.1:8711"\n'
ROUTE = f'[[route]]\nmodel = "{MODEL}"\n'
ELSEWHERE = '[[route]]\nmodel = "llm"\nprotocol = "openai"\nupstream = '
JSON = (
    '[[route]]\nmodel = "m"\nprotocol = "json"\nupstream = "http://127.0.0.1:1"\nupstream_path = "/p"\n'
    'inputs = [{ name = "x", type = "float32", path = "$.a[*]", shape = [2] }]\n'
)


def _check(house: House, text: str) -> None:
    installation = house.installation
    check_servable(Installation(installation.paths, parse_policy(text.encode(), "it"), installation.clock))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[route]]\nmodel = "llm"\nprotocol = "openai"\n', "route /v1/models/llm: protocol openai needs an upstream"),
        (f'{ROUTE}upstream = "http://127.0.0.1:1"\n', "predict: nothing can be asked by predict at an upstream"),
        (f'{ELSEWHERE}"http://models.example:1"\n', "not encrypted"),
        (f'{ELSEWHERE}"http://127.0.0.1:1"\nupstream_ca = "ca.pem"\n', "upstream_ca is for https"),
        (f'{ELSEWHERE}"http://127.0.0.1:1"\nupstream_key = "no-key"\n', "route /v1/models/llm: .*no-key"),
        (f'{ELSEWHERE}"http://127.0.0.1:1"\nextra_fields = ["messages"]\n', "messages is a field that no client"),
        (f'{ELSEWHERE}"https://a.example"\nupstream_ca = "no-ca"\n', "upstream_ca cannot be used"),
        (f'{ELSEWHERE}"http://127.0.0.1:1"\ncalibration = "{"0" * 64}"\n', "calibration of route .*llm is not there"),
        (f'{ROUTE}calibration = "{"0" * 64}"\n', "calibration is for protocol openai"),
        (f"{ROUTE}abstain = 0.01\n", "cannot refuse strange queries .*has no calibration"),
        ('[access]\npolicies = "no.cedar"\n', "access.policies: .*no.cedar"),
        (f'{ISSUER}keys = "no-jwks.json"\n', "issuer.keys of https://login.example: .*no-jwks.json"),
        (
            f"{PORT}[operators]\nissuer = 'https://login.example'\nclient_id = 'p'\nkeys = 'no-jwks.json'\n",
            "operators.keys of https://login.example: .*no-jwks.json",
        ),
        ('[gate]\nlisten = "0.0.0.0:8710"\n', "gate.listen: 0.0.0.0:8710 is not the loopback"),
        ('[gate]\ntls_certificate = "no.pem"\ntls_key = "no.key"\n', "gate.tls_certificate: .*no.pem is no file"),
        ('[operations]\nlisten = "0.0.0.0:8711"\n', "operations.listen: 0.0.0.0:8711 is not the loopback"),
        (
            '[operations]\nlisten = "127.0.0.1:8711"\ntls_certificate = "no.pem"\ntls_key = "no.key"\n',
            "operations.tls_certificate and operations.tls_key cannot be used",
        ),
        ('[operations]\nlisten = "127.0.0.1:8711"\ntoken = "no-token"\n', "operations.token: .*no-token is no file"),
        ('[operations]\nlisten = "127.0.0.1:8710"\n', "gate.listen and operations.listen are one port, 8710"),
        (
            '[gate]\nlisten = "0.0.0.0:8710"\nbehind_proxy = true\n[operations]\nlisten = "127.0.0.1:8710"\n',
            "gate.listen and operations.listen are one port, 8710",
        ),
        (
            '[gate]\nlisten = "[::1]:8710"\n[operations]\nlisten = "[0:0::1]:8710"\n',
            "gate.listen and operations.listen are one port, 8710",
        ),
        (
            '[gate]\nlisten = "127.0.0.1:8710"\ngrpc_listen = "localhost:8710"\n',
            "gate.listen and gate.grpc_listen are one port, 8710",
        ),
        (
            '[gate]\ngrpc_listen = "[::]:8711"\nbehind_proxy = true\n[operations]\nlisten = "127.0.0.1:8711"\n',
            "gate.grpc_listen and operations.listen are one port, 8711",
        ),
        (
            '[gate]\nlisten = "10.0.0.1:8710"\ngrpc_listen = "[::ffff:10.0.0.1]:8710"\nbehind_proxy = true\n',
            "gate.listen and gate.grpc_listen are one port, 8710",
        ),
        ('[[route]]\nmodel = "nobody"\n', "route /v1/models/nobody/predict: no model 'nobody'"),
        (f'{ELSEWHERE}"http://127.0.0.1:1"\nmodel = "A B"\n'.replace('model = "llm"\n', ""), "route /v1/models/A B: "),
        (
            f'{JSON}outputs = [{{ name = "y", type = "float32", path = "$.b" }}]\n',
            r"the inputs have rows \(\[\*\]\), and an output has none",
        ),
        (
            f'{JSON}outputs = [{{ name = "y", type = "string", path = "$.b[*]", shape = [3, 3] }}]\n',
            "none of the outputs",
        ),
    ],
)
def test_what_serve_would_refuse_at_once_is_refused(house: House, text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        _check(house, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ROUTE,
        f'{ELSEWHERE}"http://127.0.0.1:1"\n',
        f'{JSON}outputs = [{{ name = "y", type = "float32", path = "$.b[*]" }}]\n',
        '[[route]]\nmodel = "m"\nprotocol = "open-inference"\nupstream = "unix:/run/m.sock"\n',
        f"{ISSUER}",
        '[operations]\nlisten = "127.0.0.1:8711"\n',
        '[gate]\nlisten = "127.0.0.1:0"\n[operations]\nlisten = "127.0.0.1:0"\n',
        '[gate]\nlisten = "127.0.0.1:0"\ngrpc_listen = "127.0.0.1:0"\n[operations]\nlisten = "127.0.0.1:0"\n',
        '[gate]\nlisten = "127.0.0.2:8710"\ngrpc_listen = "127.0.0.1:8710"\n[operations]\nlisten = "[::1]:8710"\n',
        '[gate]\nlisten = "unix:gate.sock"\n[operations]\nlisten = "127.0.0.1:8711"\n',
    ],
)
def test_what_could_be_served_is_let_through_and_nobody_is_asked(
    house: House, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    _check(house, text)


def test_files_are_looked_for_beside_the_policy(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    (mine.installation.paths.home / "open.cedar").write_text("permit(principal, action, resource);", encoding="utf-8")
    _check(mine, f'[access]\npolicies = "open.cedar"\n{ROUTE}')
    (mine.installation.paths.home / "open.cedar").write_text("permit(", encoding="utf-8")
    with pytest.raises(PolicyError, match=r"open\.cedar"):
        _check(mine, f'[access]\npolicies = "open.cedar"\n{ROUTE}')
