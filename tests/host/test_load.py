"""`palladion.load`: from a sealed file to arrays or a session, and what it refuses."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

import palladion
from palladion.clock import ManualClock
from palladion.errors import (
    ConflictError,
    FormatError,
    KeysError,
    LicenseError,
    NotFoundError,
    TamperError,
    UnsupportedFormatError,
)
from palladion.host.host import Host
from palladion.host.tensors import LazyTensors, Tensors
from palladion.host.weights import begin_on
from palladion.seal.license import VersionRange, encode_license, new_license
from palladion.seal.recipients import write_identity
from palladion.seal.sign import publisher_id, publisher_text
from tests.models import onnx_bytes
from tests.seal.factories import CREATED, Party

WEIGHTS: dict[str, NDArray[np.generic]] = {
    "first": np.arange(12, dtype=np.float32).reshape(3, 4),
    "second": np.array([1, 2, 3], np.int64),
    "empty": np.empty((0, 4), np.float16),
}


def _host(folder: Path, party: Party) -> Host:
    return Host(folder / "host", ManualClock(CREATED), identities=[party.identity], publishers=party.publishers)


def _sealed_weights(folder: Path, party: Party, *, version: int = 3) -> Path:
    content = safetensors.numpy.save(dict(WEIGHTS))
    return party.seal(folder / f"{version}.sealed", [("w.safetensors", content)], kind="safetensors", version=version)


def test_weights_come_as_a_dict_of_arrays_that_closing_wipes(tmp_path: Path) -> None:
    party = Party()
    with palladion.load(_sealed_weights(tmp_path, party), host=_host(tmp_path, party)) as weights:
        assert isinstance(weights, Tensors)
        assert weights.keys() == WEIGHTS.keys()
        for name, expected in WEIGHTS.items():
            np.testing.assert_array_equal(weights[name], expected)
            assert not weights[name].flags.writeable
        first = weights["first"]
    assert not first.any()


def test_weights_of_several_files_come_together(tmp_path: Path) -> None:
    party = Party()
    files = [(f"{name}.safetensors", safetensors.numpy.save({name: data})) for name, data in WEIGHTS.items()]
    path = party.seal(tmp_path / "x", [("config.json", b"{}"), *files], kind="folder")
    assert palladion.load(path, host=_host(tmp_path, party)).keys() == WEIGHTS.keys()
    with palladion.load(path, host=_host(tmp_path, party), lazy=True) as lazy:
        assert set(lazy) == WEIGHTS.keys()


@pytest.mark.parametrize("lazy", [False, True])
def test_a_tensor_that_two_files_hold_is_refused(tmp_path: Path, lazy: bool) -> None:
    party = Party()
    content = safetensors.numpy.save({"same": np.zeros(3, np.float32)})
    path = party.seal(tmp_path / "x", [("a.safetensors", content), ("b.safetensors", content)], kind="folder")
    with pytest.raises(FormatError, match="two files hold a tensor 'same'"):
        palladion.load(path, host=_host(tmp_path, party), lazy=lazy)


def test_lazy_weights_are_read_one_by_one(tmp_path: Path) -> None:
    party = Party()
    with palladion.load(_sealed_weights(tmp_path, party), host=_host(tmp_path, party), lazy=True) as weights:
        assert isinstance(weights, LazyTensors)
        assert len(weights) == 3
        assert weights.spans["second"].shape == (3,)
        assert weights.info.header.version == 3
        for name, expected in WEIGHTS.items():
            np.testing.assert_array_equal(weights[name], expected)
        with pytest.raises(KeyError):
            weights["third"]


def test_an_onnx_model_comes_as_a_session(tmp_path: Path) -> None:
    party = Party()
    path = party.seal(tmp_path / "x", [("m.onnx", onnx_bytes())], kind="onnx")
    session = palladion.load(path, host=_host(tmp_path, party))
    name = session.get_inputs()[0].name
    size = session.get_inputs()[0].shape[-1]
    (answer, *_) = session.run(None, {name: np.ones((2, size), np.float32)})
    assert len(answer) == 2


def test_anything_else_comes_as_files(tmp_path: Path) -> None:
    party = Party()
    path = party.seal(tmp_path / "x", [("engine.plan", b"engine"), ("sub/a", b"")])
    for lazy in (False, True):
        with pytest.raises(UnsupportedFormatError, match="is sealed as opaque") as refused:
            palladion.load(path, host=_host(tmp_path, party), lazy=lazy)
        assert any("load_files" in hint for hint in refused.value.hints)
    with palladion.load_files(path, host=_host(tmp_path, party)) as opened:
        assert {name: bytes(data) for name, data in opened.files.items()} == {"engine.plan": b"engine", "sub/a": b""}


def test_keys_given_as_texts_and_files_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALLADION_HOST", str(tmp_path / "host"))
    party = Party()
    write_identity(tmp_path / "acme.identity", party.identity, created=CREATED)
    path = _sealed_weights(tmp_path, party)
    identity, publisher = str(tmp_path / "acme.identity"), publisher_text(party.signer.public_key)
    assert palladion.load(path, identity=identity, publisher=publisher).keys() == WEIGHTS.keys()
    with pytest.raises(ValueError, match="a host, or"):
        palladion.load(path, host=_host(tmp_path, party), identity=identity)


def test_a_host_without_keys_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALLADION_HOST", str(tmp_path / "host"))
    party = Party()
    path = _sealed_weights(tmp_path, party)
    with pytest.raises(KeysError, match="no identity") as refused:
        palladion.load(path)
    assert any("palladion recipient new" in hint for hint in refused.value.hints)
    with pytest.raises(KeysError, match="trusts no publisher") as refused:
        palladion.load(path, identity=party.identity)
    assert any("palladion host trust" in hint for hint in refused.value.hints)


def test_an_older_version_is_refused_before_any_key_is_touched(tmp_path: Path) -> None:
    party = Party()
    host = _host(tmp_path, party)
    old, new = _sealed_weights(tmp_path, party, version=3), _sealed_weights(tmp_path, party, version=4)
    palladion.load(old, host=host)
    palladion.load(new, host=host)
    for lazy in (False, True):
        with pytest.raises(ConflictError, match="version 3 is older than version 4"):
            palladion.load(old, host=host, lazy=lazy)
    assert palladion.load(old, host=host, allow_older=True).info.header.version == 3
    with pytest.raises(ConflictError):
        palladion.load_files(old, host=host)


@pytest.mark.parametrize("open_it", [palladion.load, palladion.load_lazily, begin_on])
def test_a_licence_is_asked_for_and_its_warnings_are_passed_on(tmp_path: Path, open_it: Any) -> None:
    party = Party()
    host = _host(tmp_path, party)
    content = safetensors.numpy.save(dict(WEIGHTS))
    path = party.seal(tmp_path / "x", [("w.safetensors", content)], kind="safetensors", license_required=True)
    with pytest.raises(LicenseError, match="under a licence only"):
        open_it(path, host=host)
    terms = new_license(
        publisher=publisher_id(party.signer.public_key),
        licensee="Acme",
        model="fraud",
        versions=(VersionRange(3, 3),),
        issued=CREATED,
        not_after=CREATED + timedelta(days=3),
    )
    (tmp_path / "x.license").write_bytes(encode_license(terms, party.signer))
    with pytest.warns(UserWarning, match="Acme"):
        open_it(path, host=host).close()


def test_an_address_is_read_where_it_lies(tmp_path: Path) -> None:
    party = Party()
    path = _sealed_weights(tmp_path, party)
    for lazy in (False, True):
        assert set(palladion.load(f"file://{path}", host=_host(tmp_path, party), lazy=lazy)) == WEIGHTS.keys()
    with pytest.raises(NotFoundError):
        palladion.load(f"file://{path}.missing", require_sealed=False, host=_host(tmp_path, party))


def test_what_another_publisher_signed_is_refused(tmp_path: Path) -> None:
    party, other = Party(), Party()
    with pytest.raises(TamperError):
        palladion.load(_sealed_weights(tmp_path, Party(other.signer, party.identity)), host=_host(tmp_path, party))


def test_a_plain_file_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    party = Party()
    (tmp_path / "plain.safetensors").write_bytes(safetensors.numpy.save(dict(WEIGHTS)))
    (tmp_path / "plain.onnx").write_bytes(onnx_bytes())
    with pytest.raises(FormatError, match="not a sealed file"):
        palladion.load(tmp_path / "plain.safetensors", host=_host(tmp_path, party))
    assert palladion.load(tmp_path / "plain.safetensors", require_sealed=False).keys() == WEIGHTS.keys()
    assert palladion.load(tmp_path / "plain.onnx", require_sealed=False).get_inputs()
    # a sealed one is still opened as one
    sealed = _sealed_weights(tmp_path, party)
    assert isinstance(palladion.load(sealed, host=_host(tmp_path, party), require_sealed=False), Tensors)


def test_the_package_has_what_it_says_and_nothing_else() -> None:
    assert all(getattr(palladion, name) for name in palladion.__all__)
    with pytest.raises(AttributeError, match="no attribute 'unsafe'"):
        _ = palladion.unsafe
