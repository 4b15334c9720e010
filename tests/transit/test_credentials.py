"""Logins: from where people keep them, to whom they are for, and never shown."""

import base64
import json
from pathlib import Path

import pytest

from palladion.errors import FormatError
from palladion.transit.credentials import Login, registry_login, web_login
from palladion.transit.url import parse_url

SECRET = "correct-horse"
HTTPS = parse_url("https://store.example/x")


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    path = tmp_path / ".netrc"
    path.write_text(f"machine store.example login hector password {SECRET}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "config.json"


def _auths(login: str) -> str:
    return json.dumps({"auths": {"registry.example:5000": {"auth": base64.b64encode(login.encode()).decode()}}})


def test_a_login_is_not_shown() -> None:
    assert SECRET not in repr(Login("hector", SECRET))
    assert Login("hector", "p:w").basic == "Basic aGVjdG9yOnA6dw=="


def test_a_web_login_is_that_of_the_host(netrc: Path) -> None:
    assert web_login(HTTPS) == Login("hector", SECRET)
    assert web_login(parse_url("https://other.example/x")) is None
    netrc.unlink()
    assert web_login(HTTPS) is None


def test_a_named_netrc_is_used(netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(netrc.rename(netrc.with_name("elsewhere"))))
    assert web_login(HTTPS) == Login("hector", SECRET)


def test_no_login_goes_where_others_listen(netrc: Path) -> None:
    assert web_login(parse_url("http://store.example/x", insecure_http=True)) is None
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    assert web_login(parse_url("http://127.0.0.1/x")) == Login("a", "b")


def test_a_netrc_that_others_may_read_is_refused(netrc: Path) -> None:
    netrc.chmod(0o640)
    with pytest.raises(FormatError, match="may be read by others"):
        web_login(HTTPS)


def test_a_broken_netrc_is_told_without_what_it_holds(netrc: Path) -> None:
    netrc.write_text(f"machine store.example login hector {SECRET}\n")
    with pytest.raises(FormatError, match="is no netrc file") as caught:
        web_login(HTTPS)
    assert SECRET not in str(caught.value)


def test_a_registry_login_is_that_of_the_registry(docker: Path) -> None:
    assert registry_login("registry.example:5000") is None
    docker.write_text(_auths(f"hector:{SECRET}:x"))
    assert registry_login("registry.example:5000") == Login("hector", f"{SECRET}:x")
    assert registry_login("registry.example") is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["", "[]", '{"auths": 1}', '{"auths": {"r": {"auth": "%%%"}}}', '{"auths": {"r": {"auth": "//8="}}}']
)
def test_a_broken_config_is_told_without_what_it_holds(docker: Path, text: str) -> None:
    docker.write_text(text)
    with pytest.raises(FormatError, match="is not what docker login writes"):
        registry_login("r")


def test_a_login_that_a_helper_keeps_is_none_for_us(docker: Path) -> None:
    docker.write_text('{"auths": {"r": {}}, "credsStore": "desktop"}')
    assert registry_login("r") is None
