"""Fuzzes the headers of a credential: `python -m tests.gate.hostile.fuzz.fuzz_credential -max_total_time=60`.

Lines of an input are headers; whoever is let in has sent the one key that there is, and nothing else.
"""

from datetime import UTC, datetime
from pathlib import Path

from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    from palladion.access.identity import hash_api_key, parse_api_key
    from palladion.gate.callers import Caller
    from palladion.gate.directory import Directory
    from palladion.gate.problems import Problem
    from palladion.registry import Client, ClientKey
    from tests.gate.rolls import Roll

CORPUS = Path(__file__).parent / "corpus" / "credential"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PEPPER = b"p" * 32
KEY = (CORPUS / "key").read_bytes().partition(b"Bearer ")[2].strip()


def _directory() -> Directory:
    client = Client("id", "acme", "acme", (), "trusted", NOW, None)
    hashed = hash_api_key(PEPPER, parse_api_key(KEY.decode()))
    made = Directory(PEPPER)
    made.load(Roll({hashed: ClientKey("pre", "id", NOW, None, None)}, {"id": Caller(client, "trusted", NOW, "user:a")}))
    return made


DIRECTORY = _directory()


def one_input(data: bytes) -> None:
    """Headers are those of the client, or are refused in the same way."""
    headers = {}
    for line in data.split(b"\n"):
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip(b" \t")
    try:
        caller = DIRECTORY.identify(headers, NOW)
    except Problem as problem:
        _check_refusal(problem)
        return
    assert caller.id == "id"
    given = [headers[name] for name in (b"authorization", b"x-api-key") if name in headers]
    assert len(given) == 1
    assert given[0].removeprefix(given[0][:7]).strip() == KEY or given[0] == KEY


def _check_refusal(problem: Problem) -> None:
    assert problem.kind == "unauthenticated"
    assert KEY not in problem.body()


if __name__ == "__main__":
    fuzz(one_input, str(CORPUS))
