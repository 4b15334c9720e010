"""Keys that lie in files: what they look like, each with as much of a check as its form allows. Never quotes one."""

import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from palladion.access.identity import parse_api_key
from palladion.errors import PalladionError

TEXT_BYTES_MAX = 4 * 1024 * 1024  # of a file that is read for keys: settings and notebooks are below, tables are not
FOUND_MAX = 20  # of one file: a list of a thousand keys is one finding that says so


@dataclass(frozen=True)
class Secret:
    """A key: by which rule it is a finding, what it is in words, and in which line it begins."""

    rule: str
    what: str
    line: int


@dataclass(frozen=True)
class _Form:
    """One form of a key. `marks` are looked for first: bytes of which one is in every such key, and in little else."""

    rule: str
    what: str
    marks: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    holds: Callable[[bytes], bool] = lambda _text: True
    start: bool = False  # whether it is looked for at the beginning of the file alone


def _is_api_key(text: bytes) -> bool:
    try:
        parse_api_key(text.decode("ascii"))
    except (PalladionError, ValueError):
        return False  # the checksum in it is wrong: an example, or another program's
    return True


def _is_real(text: bytes) -> bool:
    """Examples in manuals are runs of one letter, or say so (AKIAIOSFODNN7EXAMPLE)."""
    return len(set(text[-34:])) > 7 and b"EXAMPLE" not in text


def _is_packed_pem(text: bytes) -> bool:
    return b"PRIVATE KEY-----" in b64decode(text[: len(text) // 4 * 4])


_LENGTH = rb"(?:[\x01-\x7f]|\x81.|\x82..)"  # of a part in DER, below 64 KiB
_DER = re.compile(
    rb"\x30" + _LENGTH + rb"(?:"
    rb"\x02\x01\x00\x30" + _LENGTH + rb"\x06"  # PKCS 8: version 0, and which kind of key
    rb"|\x02\x01\x00\x02\x82..\x00"  # PKCS 1: version 0, and a modulus
    rb"|\x02\x01\x01\x04[\x20\x30\x42]"  # SEC 1: version 1, and a number
    rb"|\x30" + _LENGTH + rb"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d"  # PKCS 8, under a passphrase
    rb"|\x02\x01\x03\x30" + _LENGTH + rb"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07"  # PKCS 12
    rb")",
    re.DOTALL,
)

_FORMS = (
    _Form(
        "private-key",
        "a private key in PEM",
        (b"PRIVATE KEY-----",),
        # a key's line follows, so that a program which looks for such keys is none
        re.compile(rb"-----BEGIN (?:[A-Z]{1,10} ){0,2}PRIVATE KEY-----(?:\\r)?(?:\\n|\s)+[A-Za-z0-9+/=:\-, ]{16}"),
    ),
    _Form(
        "private-key",
        "a private key of OpenPGP",
        (b"PGP PRIVATE KEY BLOCK-----",),
        re.compile(rb"-----BEGIN PGP PRIVATE KEY BLOCK-----(?:\\r)?(?:\\n|\s)+[A-Za-z0-9+/=:\-, ]{16}"),
    ),
    _Form(
        "private-key",
        "a private key of PuTTY",
        (b"PuTTY-User-Key-File-",),
        re.compile(rb"PuTTY-User-Key-File-[0-9]: [a-z0-9-]{3,40}\s{1,2}Encryption: "),
    ),
    _Form(
        "private-key",
        "a private key in PEM, packed as base64",  # as Kubernetes keeps them
        (b"LS0tLS1CRUdJTi",),
        re.compile(rb"LS0tLS1CRUdJTi[A-Za-z0-9+/]{40,16384}"),
        _is_packed_pem,
    ),
    _Form(
        "private-key",
        "a private key in DER or PKCS 12",
        (b"\x02\x01\x00\x30", b"\x02\x01\x00\x02", b"\x02\x01\x01\x04", b"\x02\x01\x03\x30", b"\x0d\x01\x05\x0d"),
        _DER,
        start=True,
    ),
    _Form(
        "private-key",
        "a private key as JWK",
        (b'"kty"',),
        re.compile(rb'"d"\s{0,4}:\s{0,4}"[A-Za-z0-9_-]{43,1400}"'),
        lambda text: len(set(text)) > 16,
    ),
    _Form(
        "private-key",
        "a private key of age",
        (b"AGE-SECRET-KEY-",),
        re.compile(rb"AGE-SECRET-KEY-(?:PQ-)?1[02-9AC-HJ-NP-Z]{58,}"),
    ),
    _Form(
        "palladion-identity",
        "a palladion identity",
        (b"PALLADION-IDENTITY-",),
        re.compile(rb"PALLADION-IDENTITY-(?:X25519|MLKEM768X25519)-1[02-9AC-HJ-NP-Z]{50,200}"),
    ),
    _Form(
        "api-key",
        "an API key of a gate",
        (b"pall_",),
        re.compile(rb"\bpall_[a-z0-9]{1,16}_[0-9A-Za-z_]{16,80}"),
        _is_api_key,
    ),
    _Form(
        "cloud-key",
        "an access key of AWS",
        (b"AKIA", b"ASIA"),
        re.compile(rb"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
        _is_real,
    ),
    _Form(
        "cloud-key",
        "a secret key of AWS",
        (b"aws_secret", b"AWS_SECRET", b"awsSecret", b"aws_Secret"),
        re.compile(rb"(?:aws_?[sS]ecret|AWS_SECRET)[A-Za-z_]{0,12}[\"']?\s{0,4}[=:]\s{0,4}[\"']?[A-Za-z0-9/+]{40}\b"),
        _is_real,
    ),
    _Form("cloud-key", "a token of Hugging Face", (b"hf_",), re.compile(rb"\bhf_[A-Za-z0-9]{34}\b"), _is_real),
    _Form(
        "cloud-key",
        "a token of GitHub",
        (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"),
        re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{36}\b"),
        _is_real,
    ),
    _Form(
        "cloud-key",
        "a token of GitHub",
        (b"github_pat_",),
        re.compile(rb"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b"),
        _is_real,
    ),
    _Form("cloud-key", "a token of GitLab", (b"glpat-",), re.compile(rb"\bglpat-[A-Za-z0-9_-]{20,64}"), _is_real),
    _Form(
        "cloud-key",
        "an account key of Azure",
        (b"AccountKey=",),
        re.compile(rb"AccountKey=[A-Za-z0-9+/]{86}=="),
        # the key of the emulator is in every manual
        lambda text: _is_real(text) and not text.startswith(b"AccountKey=Eby8vdM02xNOcqFl"),
    ),
    _Form(
        "cloud-key",
        "a key of OpenAI or Anthropic",
        (b"sk-proj-", b"sk-svcacct-", b"sk-ant-api"),
        re.compile(rb"\bsk-(?:proj-|svcacct-|ant-api\d\d-)[A-Za-z0-9_-]{40,200}"),
        _is_real,
    ),
)


def secrets_in(data: bytes) -> Iterator[Secret]:
    """The keys in the bytes of one file, at most FOUND_MAX, in the order of their kinds."""
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:  # text as Windows writes it
        data = data.decode("utf-16", "replace").encode("utf-8", "replace")
    left = FOUND_MAX
    for form in _FORMS:
        if not any(mark in data for mark in form.marks):
            continue
        for match in filter(None, [form.pattern.match(data)]) if form.start else form.pattern.finditer(data):
            if not form.holds(match.group()):
                continue
            if not left:
                return
            left -= 1
            yield Secret(form.rule, form.what, data.count(b"\n", 0, match.start()) + 1)
