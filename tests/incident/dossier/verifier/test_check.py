"""The whole verifier: a dossier that holds, a thousand flipped bits, keys of others, and the program in the package."""

import io
import json
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from hashlib import sha256, sha512
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion import canonical
from palladion.incident.dossier.gather import Gathered
from palladion.incident.dossier.package import Token, with_token
from palladion.incident.dossier.verifier.archive import archive, read_archive
from palladion.incident.dossier.verifier.check import check, main, report
from palladion.incident.dossier.verifier.findings import DossierError
from palladion.incident.dossier.verifier.manifest import UNLISTED, signed_message
from palladion.keys import Ed25519Signer
from palladion.seal.sign import publisher_text
from tests.incident.dossier.authorities import Authority, pem, request
from tests.incident.dossier.stories import Story

FLIPS = 1000


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def stamped(package: bytes, story: Story, authority: Authority) -> bytes:
    manifest = read_archive(package)["manifest.json"]
    token = Token(authority.reply(request(manifest)), pem(authority.root))
    return with_token(package, story.made.owner.signer("publisher"), token)


@pytest.mark.slow
def test_a_dossier_holds_and_says_what_to_compare(stamped: bytes, story: Story, gathered: Gathered) -> None:
    checked = check(stamped)
    assert checked.withheld == sum(item.withheld for item in gathered.dossier.evidence) > 0
    assert checked.entries == len(gathered.dossier.evidence) - checked.withheld > 20
    said = "\n".join(report(checked))
    assert story.case in said
    assert "2020-03-01 12:30:00 UTC by CN=signer" in said
    publisher = story.made.owner.signer("publisher").public_key
    assert publisher.hex() in said
    assert publisher_text(publisher) in said
    assert gathered.dossier.log.key in said
    assert "pages      not read" in said


@pytest.mark.slow
def test_what_is_trusted_can_be_passed_in(
    stamped: bytes, story: Story, authority: Authority, gathered: Gathered
) -> None:
    publisher = story.made.owner.signer("publisher").public_key.hex()
    check(stamped, publisher=publisher, ledger_key=f"{gathered.dossier.log.key}\n", roots=[authority.root])
    others: tuple[dict[str, Any], ...] = (
        {"publisher": "00" * 32},
        {"publisher": publisher_text(bytes(32))},
        {"ledger_key": gathered.dossier.log.key[:-1]},
        {"roots": [Authority(keys="others").root]},
        {"roots": []},
    )
    check(stamped, publisher=publisher_text(bytes.fromhex(publisher)))
    for other in others:
        with pytest.raises(DossierError):
            check(stamped, **other)


@pytest.mark.slow
def test_a_thousand_flipped_bits_are_found(stamped: bytes) -> None:
    generator = np.random.default_rng(9)
    places = generator.choice(len(stamped) * 8, FLIPS, replace=False)
    for place in places.tolist():
        flipped = bytearray(stamped)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(DossierError):
            check(bytes(flipped))


@pytest.mark.slow
def test_a_thousand_are_found_also_where_the_archive_was_made_to_fit(stamped: bytes) -> None:
    """So that no checksum of the archive helps: in each member in turn."""
    members = read_archive(stamped)
    generator = np.random.default_rng(10)
    for _, (name, content) in zip(range(FLIPS), cycle(members.items()), strict=False):
        place = int(generator.integers(len(content) * 8))
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(DossierError):
            check(archive({**members, name: bytes(flipped)}))


@pytest.mark.slow
def test_members_that_are_taken_out_or_put_in_are_found(stamped: bytes) -> None:
    members = read_archive(stamped)
    for name in members:
        with pytest.raises(DossierError):
            check(archive({other: data for other, data in members.items() if other != name}))
    for name in ("verifier/more.py", "stamps/9.tsr", "evidence/ledger/entry-9999.json"):
        with pytest.raises(DossierError, match="same members"):
            check(archive({**members, name: b"x"}))
    with pytest.raises(DossierError, match=r"none has: more\.txt"):
        check(archive({**members, "more.txt": b"x"}))


def test_the_time_stamps_of_another_dossier_are_found(stamped: bytes, story: Story) -> None:
    """Signed by the same publisher, and none at all: what was stamped cannot be told to be unstamped."""
    members = read_archive(stamped)
    listing = json.dumps({"v": 1, "manifest": "00" * 32, "members": [], "stamps": []}).encode()
    signature = story.made.owner.signer("publisher").sign(signed_message("stamps", listing)).hex() + "\n"
    kept = {name: data for name, data in members.items() if not name.startswith("stamps/")}
    with pytest.raises(DossierError, match="another dossier"):
        check(archive({**kept, "stamps.json": listing, "stamps.sig": signature.encode()}))


def test_a_dossier_signed_anew_names_another_publisher(stamped: bytes, story: Story) -> None:
    forger, members = Ed25519Signer(b"\x66" * 32), read_archive(stamped)
    manifest = json.loads(members["manifest.json"])
    manifest["publisher"] = forger.public_key.hex()
    members["manifest.json"] = json.dumps(manifest).encode()
    for what in ("manifest", "stamps"):
        message = signed_message(what, members[f"{what}.json"])
        members[f"{what}.sig"] = f"{forger.sign(message).hex()}\n".encode()
    with pytest.raises(DossierError, match=r"another dossier"):
        check(archive(members))
    with pytest.raises(DossierError, match="another publisher"):
        check(archive(members), publisher=story.made.owner.signer("publisher").public_key.hex())


FORGER = Ed25519Signer(b"\x66" * 32)


def _signed(
    members: dict[str, bytes],
    change: Callable[[dict[str, Any]], None] = lambda _manifest: None,
    stamps: Sequence[dict[str, str]] = (),
) -> bytes:
    """The dossier of these members, with a manifest that was changed and signed by a forger."""

    def listed(names: set[str]) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "bytes": len(members[name]),
                "sha256": sha256(members[name]).hexdigest(),
                "sha512": sha512(members[name]).hexdigest(),
            }
            for name in sorted(names)
        ]

    of_stamps = {name for name in members if name.startswith("stamps/")}
    manifest = json.loads(members["manifest.json"]) | {"publisher": FORGER.public_key.hex()}
    manifest["members"] = listed(members.keys() - UNLISTED - of_stamps)
    change(manifest)
    texts = {"manifest": canonical.encode(manifest)}
    told = {"v": 1, "manifest": sha256(texts["manifest"]).hexdigest(), "members": listed(of_stamps)}
    texts["stamps"] = canonical.encode({**told, "stamps": list(stamps)})
    signatures = {f"{what}.sig": FORGER.sign(signed_message(what, data)).hex() for what, data in texts.items()}
    return archive(
        {
            **members,
            **{f"{what}.json": data for what, data in texts.items()},
            **{name: f"{signature}\n".encode() for name, signature in signatures.items()},
        }
    )


@pytest.fixture(scope="module")
def forged(package: bytes) -> dict[str, bytes]:
    """Members of a dossier that holds, but for another publisher's signature, so that any other change shows."""
    members = read_archive(package)
    return {
        **members,
        **_carrying(json.loads(members["dossier.json"]) | {"publisher": publisher_text(FORGER.public_key)}),
    }


def _carrying(document: dict[str, Any]) -> dict[str, bytes]:
    data = canonical.encode(document)
    return {"dossier.json": data, "dossier.pdf": b"%PDF-1.7\nstream\n" + zlib.compress(data) + b"endstream\n"}


def test_whoever_signs_anew_is_named_by_the_own_key(forged: dict[str, bytes], story: Story) -> None:
    """A text that the dossier brings along could be that of the key which a reader expects."""
    theirs = publisher_text(story.made.owner.signer("publisher").public_key)
    said = "\n".join(report(check(_signed(forged, lambda manifest: manifest.update(publisher_text=theirs)))))
    assert theirs not in said
    assert publisher_text(FORGER.public_key) in said
    with pytest.raises(DossierError, match="another publisher"):
        check(_signed(forged), publisher=theirs)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 99},
        {"format": "something-else"},
        {"case": "beef"},
        {"made": "1999-01-01T00:00:00.000000Z"},
        {"ledger": "other.example+aaaa+AAAA"},
        {"publisher": FORGER.public_key.hex().upper()},
        {"publisher": f" {FORGER.public_key.hex()}"},
    ],
    ids=str,
)
def test_a_manifest_that_says_something_else_is_found(forged: dict[str, bytes], change: dict[str, Any]) -> None:
    with pytest.raises(DossierError):
        check(_signed(forged, lambda manifest: manifest.update(change)))


@pytest.mark.parametrize(
    "members",
    [
        {"stamps/1.tsr": b"junk", "stamps/1-roots.pem": b"junk"},
        {"evidence/ledger/verifier-key.txt": b"other.example+aaaa\n"},
        {"evidence/ledger/entry-1000000000000.withheld": b"whatever"},
        {"evidence/attached/more.txt": b"x"},
        {"verifier/more.py": b""},
        {"verify.py": b"print('it holds')"},
        {"Dossier.json": b"{}"},
    ],
    ids=lambda members: next(iter(members)),
)
def test_signed_members_that_do_not_belong_are_found(forged: dict[str, bytes], members: dict[str, bytes]) -> None:
    with pytest.raises(DossierError):
        check(_signed({**forged, **members}))


def test_a_document_with_a_member_twice_is_found(forged: dict[str, bytes]) -> None:
    twice = b'{"evidence":[],' + forged["dossier.json"][1:]
    pdf = b"%PDF-1.7\nstream\n" + zlib.compress(twice) + b"endstream\n"
    with pytest.raises(DossierError, match="twice"):
        check(_signed({**forged, "dossier.json": twice, "dossier.pdf": pdf}))


def test_a_number_without_end_is_said_and_not_raised(forged: dict[str, bytes]) -> None:
    infinite = forged["dossier.json"].replace(b'"entry":3,', b'"entry":1e400,', 1)
    assert infinite != forged["dossier.json"]
    with pytest.raises(DossierError, match="no whole number"):
        check(_signed({**forged, "dossier.json": infinite}))


def test_roots_that_are_none_are_said(forged: dict[str, bytes], authority: Authority) -> None:
    reply = authority.reply(request(read_archive(_signed(forged))["manifest.json"]))
    pair = {"reply": "stamps/1.tsr", "roots": "stamps/1-roots.pem"}
    members = {**forged, "stamps/1.tsr": reply, "stamps/1-roots.pem": pem(authority.root)}
    assert len(check(_signed(members, stamps=[pair])).stamps) == 1
    with pytest.raises(DossierError, match="roots cannot be read"):
        check(_signed({**members, "stamps/1-roots.pem": b"junk"}, stamps=[pair]))


@pytest.mark.parametrize("data", [b"", b"PK", b"\x00" * 100, archive({"a": b"1"}), b"PK\x03\x04" + bytes(26)])
def test_what_is_no_dossier_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(DossierError):
        check(data)


@pytest.mark.parametrize("manifest", [b"[]", b"{}", b'{"publisher": 5}', b'{"publisher": "zz"}'])
def test_a_manifest_of_another_shape_is_refused(package: bytes, manifest: bytes) -> None:
    with pytest.raises(DossierError):
        check(archive({**read_archive(package), "manifest.json": manifest}))


@pytest.mark.slow
def test_python_runs_the_package_itself_without_anything_of_ours(stamped: bytes, tmp_path: Path) -> None:
    """In a process that cannot import Palladion: isolated, from another folder, with nothing but site packages."""
    path = tmp_path / "case.zip"
    path.write_bytes(stamped)
    blocked = "import sys; sys.modules['palladion'] = None; import runpy; sys.argv = sys.argv[1:]; "
    command = [sys.executable, "-I", "-c", f"{blocked}runpy.run_path(sys.argv[0], run_name='__main__')", str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "holds" in done.stdout
    broken = bytearray(stamped)
    broken[stamped.index(b'"v":1') + 4] = ord("2")
    path.write_bytes(broken)
    done = subprocess.run([sys.executable, "-I", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "DOES NOT HOLD" in done.stdout


@pytest.mark.slow
def test_the_verifier_runs_unpacked_beside_the_package(stamped: bytes, tmp_path: Path) -> None:
    path = tmp_path / "case.zip"
    path.write_bytes(stamped)
    with zipfile.ZipFile(io.BytesIO(stamped)) as opened:
        opened.extractall(tmp_path / "out")
    command = [sys.executable, str(tmp_path / "out" / "verify.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_program_says_what_it_found_by_its_exit_code(
    package: bytes, story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "case.zip"
    path.write_bytes(package)
    assert main([str(path)]) == 0
    assert "stamped    by nobody" in capsys.readouterr().out
    assert main(["verify.py", str(path), "--publisher", "00" * 32]) == 1
    assert "DOES NOT HOLD: the dossier names another publisher's key" in capsys.readouterr().out
    assert main(["verify.py", str(tmp_path / "nothing.zip")]) == 2
    (tmp_path / "roots.pem").write_text("none")
    assert main(["verify.py", str(path), "--roots", str(tmp_path / "roots.pem")]) == 2
    with pytest.raises(SystemExit) as stopped:
        main(["verify.py"])
    assert stopped.value.code == 2


def test_what_a_hostile_dossier_is_called_cannot_act_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "case.zip"
    data = archive({"a": b"1"})
    path.write_bytes(data.replace(b"a1", b"\x1b1").replace(b"\x00a", b"\x00\x1b"))
    assert main([str(path)]) == 1
    assert "\x1b" not in capsys.readouterr().out
