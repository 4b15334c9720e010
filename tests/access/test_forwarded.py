"""The header of Envoy: the examples of its documentation, and what a client could smuggle into a name."""

from pathlib import Path
from urllib.parse import quote

import pytest

from palladion.access.forwarded import HEADER_BYTES_MAX, read_forwarded
from palladion.errors import FormatError
from tests.gate.certificates import Authority, uri

HASH = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688"
SUBJECT = 'Subject="/C=US/ST=CA/L=San Francisco/OU=Lyft/CN=Test Client"'
ID = "spiffe://example.org/scoring"


@pytest.mark.parametrize(
    ("header", "spiffe"),
    [
        # the examples of Envoy's documentation, "x-forwarded-client-cert"
        (
            f"By=http://frontend.lyft.com;Hash={HASH};{SUBJECT};URI=http://testclient.lyft.com",
            None,
        ),
        (f"By=http://frontend.lyft.com;Hash={HASH};URI=http://testclient.lyft.com", None),
        (
            f"By=http://a.com;Hash={HASH};{SUBJECT};URI=http://testclient.lyft.com;DNS=lyft.com;DNS=www.lyft.com",
            None,
        ),
        (f"By=spiffe://example.org/edge;Hash={HASH};URI={ID}", ID),
        (f"by=spiffe://example.org/edge;hash={HASH.upper()};uri={ID}", ID),
        (f'By=a;By=b;Hash={HASH};Subject="CN=a\\"b,c;d=e";URI={ID}', ID),
        (f"Hash={HASH};URI={ID};DNS=a.example", ID),
        (f'Hash={HASH};Subject="";URI=', None),
        (f"Hash={HASH};URI={ID};URI=https://example.org", None),
        (f"Hash={HASH};URI=spiffe://Example.org/x", None),
        (f"Hash={HASH}", None),
        # as Envoy writes subjects, by RFC 2253
        (f'Hash={HASH};Subject="O=Acme\\, Inc.,CN=a";URI={ID}', ID),
        (f'Hash={HASH};Subject="O=M\\C3\\BCller,CN=\\#1\\+\\;\\<\\>\\ ";URI={ID}', ID),
        (f'Hash={HASH};Subject="CN=a\\\\";URI={ID}', ID),
        # the one name of a certificate is `;URI=spiffe://…`, which Envoy does not escape
        (f"Hash={HASH};URI=;URI={ID}", None),
        (f"Hash={HASH};URI=;URI={ID};URI=", None),
    ],
)
def test_one_certificate_is_read(header: str, spiffe: str | None) -> None:
    found = read_forwarded(header.encode())
    assert (found.fingerprint, found.spiffe) == (HASH, spiffe)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("", id="nothing"),
        pytest.param(f"URI={ID}", id="no hash"),
        pytest.param(f"Hash=abc;URI={ID}", id="a short hash"),
        pytest.param(f"Hash={HASH};Hash={HASH}", id="two hashes"),
        pytest.param(f"Hash={HASH};URI={ID};Hash={'0' * 64}", id="another hash later"),
        pytest.param(f"Hash={HASH};Role=admin", id="an unknown field"),
        pytest.param(f"Hash={HASH};URI", id="a field without value"),
        pytest.param(f"Hash={HASH};;URI={ID}", id="an empty field"),
        pytest.param(f"Hash={HASH};URI={ID};", id="a semicolon at the end"),
        pytest.param(f"Hash={HASH}; URI={ID}", id="a blank"),
        pytest.param(f'Hash={HASH};Subject="a;URI={ID}', id="a quote that stays open"),
        pytest.param(f'Hash={HASH};Subject="a"b', id="something after a quote"),
        pytest.param(f'Hash={HASH};Subject="a\\";URI={ID}', id="a quote that is not the end"),
        pytest.param(f"Hash={HASH};Subject=a=b", id="an equals sign without quotes"),
        pytest.param(f"Hash={HASH};URI={ID},Hash={HASH};URI={ID}", id="two certificates"),
        pytest.param(f"Hash={HASH};URI={ID},", id="a comma at the end"),
        pytest.param(f"Hash={HASH};DNS=a;URI={ID}", id="smuggled by a name that follows"),
        pytest.param(f"Hash={HASH};URI=spiffe://x/y,By=a;Hash={HASH};URI={ID}", id="smuggled by a comma"),
        pytest.param(f"Hash={HASH};URI=ä", id="not ASCII"),
        pytest.param(";".join(["By=a"] * 100), id="too many fields"),
        pytest.param(f"Hash={HASH};Subject={'a' * HEADER_BYTES_MAX}", id="too long"),
        pytest.param(f"Hash={HASH};Cert=garbage", id="a broken certificate"),
    ],
)
def test_what_envoy_does_not_write_is_refused(header: str) -> None:
    with pytest.raises(FormatError):
        read_forwarded(header.encode())


def test_the_certificate_itself_counts_more_than_what_is_said_of_it(tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("client", [uri(ID)])
    pem = quote(issued.path.read_text(), safe="")
    lie = f'By=x;Hash={issued.fingerprint};Cert="{pem}";URI=spiffe://example.org/admin'
    found = read_forwarded(lie.encode())
    assert (found.fingerprint, found.spiffe) == (issued.fingerprint, ID)
    assert found.expires == issued.certificate.not_valid_after_utc


def test_a_certificate_with_the_hash_of_another_is_refused(tmp_path: Path) -> None:
    pem = quote(Authority(tmp_path).issue("client", [uri(ID)]).path.read_text(), safe="")
    with pytest.raises(FormatError, match="not that of its Cert"):
        read_forwarded(f'Hash={HASH};Cert="{pem}"'.encode())
