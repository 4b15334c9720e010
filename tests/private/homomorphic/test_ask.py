"""The client's HTTP: where an API key may go, and what a gate's refusal looks like."""

import pytest

from palladion.errors import FormatError
from palladion.private.homomorphic.ask import GateClient, GateError, _refusal
from palladion.private.homomorphic.client import HEClient
from palladion.private.homomorphic.envelope import parse_envelope
from tests.private.homomorphic.programs import needs_seal, program, rows


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/x",
        "https:///x",
        "h/x",
        "https://h/x?y",
        "https://h/x#y",
        "http://gate.example.com/x",
        "http://10.0.0.1/x",
    ],
)
def test_an_api_key_goes_nowhere_in_the_clear(url: str) -> None:
    with pytest.raises(FormatError):
        GateClient(url, "key")


@pytest.mark.parametrize("url", ["https://h/x", "http://127.0.0.1:8710/x", "http://localhost/x", "http://[::1]/x"])
def test_tls_and_this_host_are_fine(url: str) -> None:
    assert "key-text" not in repr(GateClient(url, "key-text"))


def test_a_problem_is_told_in_its_words_and_harmlessly() -> None:
    error = _refusal(
        409, b'{"type":"urn:palladion:problem:keys-needed","title":"No keys","detail":"send \\u001b[31m them"}'
    )
    assert error.kind == "keys-needed"
    assert error.message == "the gate answers with status 409: no keys: send ?[31m them"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'"text"'])
def test_what_is_no_problem_document_is_told_by_its_status(body: bytes) -> None:
    error = _refusal(502, body)
    assert (error.kind, error.message) == ("", "the gate answers with status 502")


def test_networks_of_two_hidden_layers_are_asked_by_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_seal()
    made = program((4, 3, 3, 2), copies=1)
    forms: list[str] = []

    def told(_: GateClient, method: str, path: str, body: bytes, bytes_max: int) -> bytes:
        forms.append(parse_envelope(body, kind="query", program=made.bundle.id).form)
        raise GateError("enough")

    monkeypatch.setattr(GateClient, "_ask", told)
    client, gate = HEClient(made.bundle), GateClient("https://h/x", "key")
    with pytest.raises(GateError, match="enough"):
        gate.ask(client, rows(made, made.bundle.parameters.slots))
    assert forms == ["interleaved"]
    with pytest.raises(FormatError, match="several hidden layers"):
        gate.ask(client, rows(made, 1), by_columns=True)
