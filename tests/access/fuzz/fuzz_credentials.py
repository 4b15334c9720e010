"""Fuzz target: what strangers send to be let in. The first byte picks the reader, the rest is what it reads."""

from collections.abc import Callable, Mapping
from pathlib import Path

from palladion.errors import FormatError, KeysError
from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    from palladion.access.forwarded import read_forwarded
    from palladion.access.identity import parse_api_key
    from palladion.access.jwks import parse_jwks
    from palladion.access.tokens import Unverified, read_token, verify_token
    from palladion.access.users import user_name

from tests.access.issuing import NOW, POLICY

CORPUS = Path(__file__).parent / "corpus"


def _token(data: bytes) -> object:
    token = read_token(data)
    # no key is right for what nobody signed: the claims are looked at, and then it ends
    return verify_token(token, POLICY, (), NOW)


def _claims(data: bytes) -> object:
    from palladion.access.strict_json import decode_object

    claims = decode_object(data, what="claims")
    return verify_token(Unverified({"alg": "ES256"}, claims, b"", b""), POLICY, (), NOW)


READERS: Mapping[int, Callable[[bytes], object]] = {
    ord("t"): _token,
    ord("c"): _claims,
    ord("k"): lambda data: parse_jwks(data, algorithms=POLICY.algorithms),
    ord("x"): read_forwarded,
    ord("a"): lambda data: parse_api_key(data.decode("latin-1")),
    ord("u"): lambda data: user_name(data.decode("utf-8")),
}


def one_input(data: bytes) -> None:
    """Read `data` by the reader that its first byte names; anything but a value or a refusal is a fault."""
    reader = READERS.get(data[0]) if data else None
    if reader is None:
        return
    try:
        reader(data[1:])
    except (FormatError, KeysError):
        return
    except ValueError:
        # only a name is refused so: it comes from a proxy or a token that has been verified
        if reader is not READERS[ord("u")]:
            raise
    else:
        if reader in {_token, _claims}:
            raise AssertionError("a token that nobody signed was taken")


if __name__ == "__main__":
    fuzz(one_input, str(CORPUS))
