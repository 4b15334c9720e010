"""A dossier on disk: on record before it is there, never over another file, stamped and signed where that was asked."""

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from palladion.errors import ConflictError, MissingExtraError, NotFoundError, StorageError, TamperError
from palladion.incident.dossier.gather import Wishes
from palladion.incident.dossier.package import Token
from palladion.incident.dossier.render import PdfKey
from palladion.incident.dossier.verifier.archive import read_archive
from palladion.incident.dossier.write import Authority, Written, stamp_dossier, write_dossier
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.installation import Installation
from tests.lifecycle.installations import ACTOR

from .authorities import Authority as Stamper
from .authorities import pem, request
from .stories import Story, tell

pytest.importorskip("typst", reason="a dossier needs the dossier extra: pip install 'palladion[dossier]'")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A case of this module: its tests write into its ledger."""
    return tell(tmp_path_factory.mktemp("write"), answers=4)


@pytest.fixture(scope="module")
def stamper() -> Stamper:
    return Stamper()


def _write(own: Story, out: Path, *authorities: Authority, pdf_key: PdfKey | None = None) -> Written:
    made = own.made
    return write_dossier(
        made.installation,
        made.owner,
        own.case[:6],
        out,
        Wishes(),
        actor=ACTOR,
        authorities=authorities,
        pdf_key=pdf_key,
    )


def _last(own: Story) -> Record:
    reader = own.made.installation.read_ledger()
    return decode_record(reader.entry(reader.size - 1), what="it")


@pytest.mark.slow
def test_a_dossier_is_written_for_its_owner_alone_and_recorded(own: Story, tmp_path: Path) -> None:
    out = tmp_path / "case.zip"
    written = _write(own, out)
    assert out.stat().st_mode & 0o777 == 0o600
    assert out.stat().st_size == written.bytes
    record = _last(own)
    assert (record.kind, record.subject, record.actor) == ("dossier.written", f"incident:{own.case}", ACTOR)
    assert record.details["manifest"] == written.manifest_digest
    assert record.details["named"] is False
    assert written.receipt.index > max(item for item in [written.checked.entries])


@pytest.mark.slow
def test_the_next_dossier_tells_of_the_one_before(own: Story, tmp_path: Path) -> None:
    first = _write(own, tmp_path / "1.zip")
    second = _write(own, tmp_path / "2.zip")
    assert f"manifest {first.manifest_digest}".encode() in second.checked.members["dossier.json"]


@pytest.mark.slow
def test_a_file_that_is_there_stays_and_nothing_is_recorded(own: Story, tmp_path: Path) -> None:
    out = tmp_path / "case.zip"
    _write(own, out)
    before, data = _last(own), out.read_bytes()
    with pytest.raises(ConflictError, match="is there already"):
        _write(own, out)
    assert out.read_bytes() == data
    assert list(tmp_path.iterdir()) == [out]
    assert _last(own).kind == before.kind


@pytest.mark.slow
def test_a_file_that_appears_meanwhile_stays_too(own: Story, tmp_path: Path, stamper: Stamper) -> None:
    out = tmp_path / "case.zip"

    def meanwhile(request: bytes) -> bytes:
        out.write_bytes(b"another's")
        return stamper.reply(request)

    with pytest.raises(StorageError):
        _write(own, out, Authority(meanwhile, (stamper.root,)))
    assert out.read_bytes() == b"another's"


def test_without_the_extra_nothing_is_read(own: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    monkeypatch.setattr(Installation, "read_ledger", lambda _self: pytest.fail("it was read"))
    with pytest.raises(MissingExtraError):
        _write(own, tmp_path / "case.zip")


@pytest.mark.slow
def test_what_goes_wrong_leaves_no_file(own: Story, tmp_path: Path, stamper: Stamper) -> None:
    out, size = tmp_path / "case.zip", own.made.installation.read_ledger().size
    with pytest.raises(TamperError):
        _write(own, out, Authority(lambda _request: b"", (stamper.root,)))
    with pytest.raises(NotFoundError):
        _write(replace(own, case="ffffffffff"), out)
    assert list(tmp_path.iterdir()) == []
    assert own.made.installation.read_ledger().size == size


@pytest.mark.slow
def test_it_is_stamped_by_each_authority_and_once_more_later(own: Story, tmp_path: Path, stamper: Stamper) -> None:
    other = Stamper(keys="others")
    asked = [Authority(item.reply, (item.root,)) for item in (stamper, other)]
    written = _write(own, tmp_path / "case.zip", *asked)
    assert len(written.checked.stamps) == 2
    again = stamp_dossier(
        own.made.installation, own.made.owner, tmp_path / "case.zip", tmp_path / "more.zip", asked[0], actor=ACTOR
    )
    assert len(again.checked.stamps) == 3
    assert again.manifest_digest == written.manifest_digest
    record = _last(own)
    assert (record.kind, record.details) == (
        "dossier.stamped",
        {"manifest": written.manifest_digest, "authority": "CN=signer"},
    )


@pytest.mark.slow
def test_a_token_that_was_fetched_elsewhere_is_put_in(own: Story, tmp_path: Path, stamper: Stamper) -> None:
    first, out = tmp_path / "case.zip", tmp_path / "stamped.zip"
    _write(own, first)
    manifest = read_archive(first.read_bytes())["manifest.json"]
    installation, owner = own.made.installation, own.made.owner
    token = Token(stamper.reply(request(manifest, nonce=None)), pem(stamper.root))
    stamped = stamp_dossier(installation, owner, first, out, token, actor=ACTOR)
    assert [item.time for item in stamped.checked.stamps] == [stamper.at]
    other = Token(stamper.reply(request(b"another")), pem(stamper.root))
    with pytest.raises(TamperError, match="something else"):
        stamp_dossier(installation, owner, first, tmp_path / "never.zip", other, actor=ACTOR)
    assert not (tmp_path / "never.zip").exists()


@pytest.mark.slow
def test_a_stamped_dossier_does_not_replace_the_one_before(own: Story, tmp_path: Path, stamper: Stamper) -> None:
    out = tmp_path / "case.zip"
    _write(own, out)
    with pytest.raises(ConflictError, match="is there already"):
        stamp_dossier(
            own.made.installation, own.made.owner, out, out, Authority(stamper.reply, (stamper.root,)), actor=ACTOR
        )


@pytest.mark.slow
def test_the_pdf_is_signed_where_there_is_a_key(own: Story, tmp_path: Path, stamper: Stamper) -> None:
    from pyhanko.pdf_utils.reader import PdfFileReader

    plain = serialization.NoEncryption()
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    key.write_bytes(stamper.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    certificate.write_bytes(pem(stamper.signer))
    _write(own, tmp_path / "case.zip", pdf_key=PdfKey(key, certificate))
    pdf = read_archive((tmp_path / "case.zip").read_bytes())["dossier.pdf"]
    assert len(PdfFileReader(io.BytesIO(pdf)).embedded_signatures) == 1
