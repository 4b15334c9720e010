"""Planted files look as real ones do, open for nobody, and are known by a keyed digest alone."""

from datetime import timedelta
from pathlib import Path

import pytest

from palladion.errors import ConflictError, KeysError, PalladionError, StorageError, TamperError
from palladion.ledger.record import decode_record
from palladion.lifecycle import decoy_files
from palladion.lifecycle.backup import back_up, read_publisher
from palladion.lifecycle.decoy_files import places_of, plant_backup, plant_file
from palladion.lifecycle.decoy_touches import notice_sealed
from palladion.lifecycle.installation import gate_identity, owner_identity
from palladion.lifecycle.protect import protect
from palladion.seal.reader import open_sealed, verify_file
from palladion.seal.recipients import FileIdentity
from palladion.transit.push import push
from tests.lifecycle.installations import ACTOR, ESCROW, Made, make
from tests.models import onnx_bytes, write

SIZE = 40_000
NOBODY = FileIdentity(b"\x55" * 32).recipient


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path, escrow=True)


def _plant(made: Made, place: Path | str, **more: object) -> decoy_files.Planted:
    values: dict[str, object] = {"label": "old disk", "model": "fraud-prod", "size": SIZE, "actor": ACTOR, **more}
    return plant_file(made.installation, made.owner, str(place), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("purpose", ["served", "original"])
def test_a_planted_file_verifies_and_says_what_a_real_one_says(made: Made, tmp_path: Path, purpose: str) -> None:
    protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    _plant(made, tmp_path / "decoy.sealed", kind="onnx", purpose=purpose, version=3)
    publishers, paths = made.installation.publishers(), made.installation.paths
    real = verify_file(paths.served("fraud", 1) if purpose == "served" else paths.original("fraud", 1), publishers)
    decoy = verify_file(tmp_path / "decoy.sealed", publishers)
    assert [(wrap.kind, wrap.key_id, len(wrap.blob)) for wrap in decoy.wraps] == [
        (wrap.kind, wrap.key_id, len(wrap.blob)) for wrap in real.wraps
    ]
    filled = {name for name in real.header.__struct_fields__ if getattr(real.header, name)}
    assert {name for name in decoy.header.__struct_fields__ if getattr(decoy.header, name)} == {*filled, "previous"}
    assert (decoy.header.model, decoy.header.version, decoy.header.kind) == ("fraud-prod", 3, "onnx")
    assert (tmp_path / "decoy.sealed").stat().st_mode & 0o777 == 0o600


def test_nobody_opens_it(made: Made, tmp_path: Path) -> None:
    _plant(made, tmp_path / "served.sealed", purpose="served")
    _plant(made, tmp_path / "decoy.sealed")
    gate = gate_identity(made.installation.open_gate_root())
    for name, identity in (("decoy", owner_identity(made.owner)), ("decoy", ESCROW), ("served", gate)):
        # the wrap opens, and what is in it is no file key
        with pytest.raises(TamperError):
            open_sealed(tmp_path / f"{name}.sealed", [identity], made.installation.publishers())
    with pytest.raises(KeysError):
        open_sealed(tmp_path / "decoy.sealed", [FileIdentity(b"\x66" * 32)], made.installation.publishers())


def test_neither_registry_nor_ledger_says_which_file_or_where(made: Made, tmp_path: Path) -> None:
    planted = _plant(made, tmp_path / "tempting" / "decoy.sealed", addresses=["https://files.example/decoy"])
    info = verify_file(tmp_path / "tempting" / "decoy.sealed", made.installation.publishers())
    assert (planted.decoy.kind, planted.decoy.count, planted.decoy.model) == ("file", 1, None)
    files = [path for path in made.installation.paths.directory.rglob("*") if path.is_file()]
    everything = b"".join(path.read_bytes() for path in files)
    for secret in (info.header.file_id.encode(), bytes.fromhex(info.header.file_id), b"tempting", b"files.example"):
        assert secret not in everything
    last = list(made.installation.read_ledger().entries())[-1][1]
    record = decode_record(last, what="it")
    assert (record.kind, record.details) == ("decoy.added", {"kind": "file", "model": None, "count": 1})
    assert places_of(made.installation, planted.decoy) == [
        str(tmp_path / "tempting" / "decoy.sealed"),
        "https://files.example/decoy",
    ]


def test_two_are_as_different_as_two_real_ones(made: Made, tmp_path: Path) -> None:
    _plant(made, tmp_path / "a.sealed")
    _plant(made, tmp_path / "b.sealed")
    one, other = (tmp_path / "a.sealed").read_bytes(), (tmp_path / "b.sealed").read_bytes()
    assert sum(a == b for a, b in zip(one[1000:30_000], other[1000:30_000], strict=True)) < 400


def test_what_cannot_be_planted_is_refused_and_leaves_nothing(made: Made, tmp_path: Path) -> None:
    protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    with pytest.raises(ConflictError, match="is a model of this installation"):
        _plant(made, tmp_path / "x.sealed", model="fraud")
    with pytest.raises(PalladionError, match="a decoy of 5 bytes"):
        _plant(made, tmp_path / "x.sealed", size=5)
    with pytest.raises(PalladionError, match="is not allowed"):
        _plant(made, tmp_path / "x.sealed", model="Fraud Prod")
    with pytest.raises(PalladionError, match="the label"):
        _plant(made, tmp_path / "x.sealed", label=" ")
    assert not (tmp_path / "x.sealed").exists()
    (tmp_path / "y.sealed").write_bytes(b"mine")
    with pytest.raises(StorageError, match="exists"):
        _plant(made, tmp_path / "y.sealed")
    assert (tmp_path / "y.sealed").read_bytes() == b"mine"


def test_without_a_size_it_has_one_of_a_model(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoy_files, "SIZES", (50_000, 60_000))
    _plant(made, tmp_path / "x.sealed", size=None)
    assert 50_000 <= (tmp_path / "x.sealed").stat().st_size < 65_000


def test_an_address_gets_the_file_and_nothing_stays_here(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, bytes]] = []

    def send(path: Path, url: str, publishers: list[bytes], **_: object) -> None:
        sent.append((url, path.read_bytes()))

    assert callable(push)
    monkeypatch.setattr(decoy_files, "push", send)
    planted = _plant(made, "s3://models/fraud.sealed")
    assert [url for url, _ in sent] == ["s3://models/fraud.sealed"]
    assert sent[0][1].startswith(b"\x93PALL")
    assert places_of(made.installation, planted.decoy) == ["s3://models/fraud.sealed"]
    assert not list(made.installation.paths.directory.glob(".decoy-*"))


def test_a_planted_backup_looks_like_a_real_one(made: Made, tmp_path: Path) -> None:
    real = back_up(made.installation, made.owner, [NOBODY], tmp_path / "real", actor=ACTOR)
    planted = plant_backup(
        made.installation, made.owner, [NOBODY], tmp_path / "decoy", label="old disk", size=SIZE, actor=ACTOR
    )
    names = [sorted(path.name.partition("T")[0] for path in (tmp_path / name).iterdir()) for name in ("real", "decoy")]
    assert names[0] == names[1]
    assert read_publisher(tmp_path / "decoy") == read_publisher(tmp_path / "real")
    (state,) = (tmp_path / "decoy").glob("state-*.sealed")
    publishers = made.installation.publishers()
    one, other = verify_file(real.state, publishers), verify_file(state, publishers)
    assert [(wrap.kind, wrap.key_id) for wrap in one.wraps] == [(wrap.kind, wrap.key_id) for wrap in other.wraps]
    assert (other.header.kind, other.header.purpose, other.header.model) == ("backup", "backup", "")
    assert state.name.endswith(f"-{other.header.file_id[:8]}.sealed")
    assert planted.decoy.kind == "backup"
    with pytest.raises(StorageError, match="exists already"):
        plant_backup(made.installation, made.owner, [NOBODY], tmp_path / "decoy", label="x", size=SIZE, actor=ACTOR)


def test_a_size_that_nobody_names_is_one_that_a_model_has() -> None:
    drawn = {decoy_files._size(None) for _ in range(64)}
    assert len(drawn) > 32
    assert {size % 8 for size in drawn} == {0}
    assert all(decoy_files.SIZES[0] <= size < decoy_files.SIZES[1] for size in drawn)
    # beside ours it is as large as ours are, of whatever remainder such files have
    drawn = {decoy_files._size(None, "onnx", [1_000_000]) for _ in range(64)}
    assert all(700_000 <= size < 1_400_000 for size in drawn)
    assert len({size % 8 for size in drawn}) > 4
    assert {decoy_files._size(None, "safetensors", [1_000_004]) % 8 for _ in range(9)} == {4}
    assert decoy_files._size(None, "gguf", [2**50]) < 1.4 * decoy_files.LIKE_MAX


def test_beside_ours_a_decoy_is_no_larger_than_they_are(made: Made, tmp_path: Path) -> None:
    protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    _plant(made, tmp_path / "x.sealed", kind="onnx", size=None)
    size = made.installation.paths.served("fraud", 1).stat().st_size
    assert (tmp_path / "x.sealed").stat().st_size < max(2 * size, 20_000)


def test_a_planted_backup_holds_versions_as_a_real_one_does(made: Made, tmp_path: Path) -> None:
    for seed in (0, 9):
        source = write(tmp_path / f"m{seed}.onnx", onnx_bytes(seed))
        protect(made.installation, made.owner, source, "fraud", actor=ACTOR)
        made.clock.advance(timedelta(hours=1))
    real = back_up(made.installation, made.owner, [NOBODY], tmp_path / "real", actor=ACTOR)
    planted = plant_backup(made.installation, made.owner, [NOBODY], tmp_path / "decoy", label="disk", actor=ACTOR)
    publishers = made.installation.publishers()
    found: list[list[object]] = []
    for name in ("real", "decoy"):
        infos = {path: verify_file(path, publishers) for path in (tmp_path / name / "sealed").iterdir()}
        assert all(path.name == f"{info.header_digest}.sealed" for path, info in infos.items())
        headers = sorted((info.header for info in infos.values()), key=lambda h: (h.version, h.purpose))
        places = {info.header_digest: (info.header.version, info.header.purpose) for info in infos.values()}
        found.append([
            [(h.kind, h.purpose, h.version, places.get(h.previous), h.base) for h in headers],
            [len({h.content for h in headers}), len({h.model for h in headers})],
            sorted([(wrap.kind, wrap.key_id) for wrap in info.wraps] for info in infos.values()),
            {path.stat().st_mode for path in infos},
        ])  # fmt: skip
    assert found[1] == found[0]
    assert "fraud" not in {info.header.model for info in infos.values()}
    # the state of a real backup is about as large; before, a planted one had six megabytes and more
    sizes = [path.stat().st_size for path in (real.state, Path(planted.place))]
    assert abs(sizes[0] - sizes[1]) < 0.1 * sizes[0]
    # whoever tries one of the versions is known as well
    told = [notice_sealed(made.installation, path, actor=ACTOR) for path in infos]
    assert [one.touches for one in told if one is not None] == [1] * 4
