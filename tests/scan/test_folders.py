"""Folders: links are not followed, and numbers beside a model belong to it."""

from pathlib import Path

import onnx

from palladion.scan import Verdict, scan_folder
from tests.models import onnx_bytes, write
from tests.scan.corpus.models import saved_model
from tests.scan.corpus.run import BYTES_MAX, DOMAINS
from tests.scan.corpus.sample import call


def _scan(folder: Path) -> dict[str, Verdict]:
    found = scan_folder(folder, operator_domains=DOMAINS, bytes_max=BYTES_MAX)
    return {str(Path(verdict.file).relative_to(folder)): verdict for verdict in found}


def test_a_link_out_of_the_folder_is_suspicious_and_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "evil.pkl", call("os", "system"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to("../evil.pkl")
    assert [(item.rule, item.grade) for item in _scan(folder)["link"].findings] == [("link", "suspicious")]


def test_a_link_within_the_folder_leads_to_what_is_scanned_anyway(tmp_path: Path) -> None:
    write(tmp_path / "config.json", b"{}")
    (tmp_path / "other.json").symlink_to("config.json")
    assert list(_scan(tmp_path)) == ["config.json"]


def test_a_link_of_a_snapshot_leads_to_the_file_of_its_repository(tmp_path: Path) -> None:
    cache = tmp_path / "models--a--b"
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for folder, data in ((cache, call("os", "system")), (tmp_path / "other", b"{}")):
        (folder / "blobs").mkdir(parents=True)
        write(folder / "blobs" / "abc", data)
    (snapshot / "pytorch_model.bin").symlink_to("../../blobs/abc")
    (snapshot / "config.json").symlink_to("../../../other/blobs/abc")
    found = _scan(snapshot)
    assert [item.rule for item in found["pytorch_model.bin"].findings] == ["pickle-global"]
    assert [item.rule for item in found["config.json"].findings] == ["link"]


def test_a_fingerprint_belongs_to_the_saved_model_beside_it(tmp_path: Path) -> None:
    for folder in ("model", "alone"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "fingerprint.pb", b"\x08\xd1\xf2\xca\xd8\xe9\x9f")
    write(tmp_path / "model" / "saved_model.pb", saved_model(("Const", "EnsureShape")))
    found = _scan(tmp_path)
    assert [name for name, verdict in found.items() if verdict.findings] == ["alone/fingerprint.pb"]


def test_numbers_that_an_onnx_model_names_belong_to_it(tmp_path: Path) -> None:
    model = onnx.load_from_string(onnx_bytes())
    onnx.save_model(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="m.bin", size_threshold=0)
    write(tmp_path / "other.bin", bytes(range(255, 0, -1)))
    found = _scan(tmp_path)
    assert (found["m.onnx"].findings, found["m.bin"].format) == ((), "numbers")
    assert found["other.bin"].word == "refused"
