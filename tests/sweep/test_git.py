"""The history of a repository is looked into: what was deleted, and what no branch leads to."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sweep.things import ONNX, PEM, POINTER, sweep, the, told, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("git") is None, reason="this needs git"),
]


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *arguments]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, env=environment).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose model and key were deleted, with a pointer, and a blob that no branch leads to."""
    folder = tmp_path / "repo"
    folder.mkdir()
    _git(folder, "init", "-q", "-b", "main")
    write(folder, {"models/m.onnx": ONNX, "key.pem": PEM, "big.onnx": POINTER})
    _git(folder, "add", ".")
    _git(folder, "commit", "-q", "-m", "one")
    _git(folder, "rm", "-q", "models/m.onnx", "key.pem")
    _git(folder, "commit", "-q", "-m", "two")
    (folder / "lost").write_bytes(ONNX + b"\x32\x00")  # another blob
    _git(folder, "hash-object", "-w", "lost")
    (folder / "lost").unlink()
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_what_was_deleted_is_still_found(repository: Path, packed: bool) -> None:
    if packed:
        _git(repository, "gc", "-q")
    swept = sweep(repository)
    findings = {(rule, place.partition(" (blob")[0]) for rule, place in told(swept, repository.parent)}
    assert ("model-in-history", "repo!models/m.onnx") in findings
    assert ("private-key", "repo!key.pem") in findings
    assert ("lfs-pointer", "repo!big.onnx") in findings
    assert ("lfs-pointer", "repo/big.onnx") in findings
    assert swept.kinds["repository"] == 1
    assert "in the history of a git repository" in the(swept, "private-key").text


def test_an_object_that_no_branch_leads_to_is_found(repository: Path) -> None:
    texts = [found.text for found in sweep(repository).findings if "no branch leads to" in found.place]
    assert len(texts) == 1
    assert "left behind by its branches" in texts[0]


def test_a_bare_repository_and_its_lfs_objects_are_looked_into(repository: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    _git(tmp_path, "clone", "-q", "--bare", str(repository), str(bare))
    write(bare, {"lfs/objects/ab/cd/abcd": ONNX})
    findings = told(sweep(bare), tmp_path)
    assert ("plain-model", "bare.git/lfs/objects/ab/cd/abcd") in findings
    assert any(rule == "model-in-history" for rule, _ in findings)


def test_history_is_left_out_where_that_is_asked(repository: Path) -> None:
    from palladion.sweep.judge import Judge
    from palladion.sweep.rows import Ours
    from palladion.sweep.sweep import Sweep

    swept = Sweep(Judge(Ours()), history=False).run([str(repository)])
    assert {found.rule for found in swept.findings} == {"lfs-pointer"}


def test_nothing_that_a_repository_says_is_run(repository: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for key in (
        "core.fsmonitor",
        "core.pager",
        "core.sshCommand",
        "filter.x.smudge",
        "diff.x.textconv",
        "alias.cat-file",
    ):
        _git(repository, "config", key, f"!touch {ran}" if key.startswith("alias") else f"touch {ran}")
    for hook in ("pre-auto-gc", "post-checkout", "reference-transaction"):
        path = repository / ".git/hooks" / hook
        path.write_text(f"#!/bin/sh\ntouch {ran}\n")
        path.chmod(0o755)
    assert any(found.rule == "model-in-history" for found in sweep(repository).findings)
    assert not ran.exists()


def test_a_broken_repository_is_a_finding(repository: Path) -> None:
    shutil.rmtree(repository / ".git/refs")
    assert "cannot be read" in the(sweep(repository), "not-read").text


def test_without_git_the_history_is_a_finding(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palladion.sweep.git.shutil.which", lambda _: None)
    assert "needs git" in the(sweep(repository), "not-read").text


def test_a_bare_repository_in_a_work_tree_is_looked_into(repository: Path) -> None:
    git = shutil.which("git") or "git"
    subprocess.run([git, "clone", "-q", "--bare", str(repository), str(repository / "b.git")], check=True)
    found = {finding.place for finding in sweep(repository).findings}
    assert any("/b.git!" in place for place in found)


def test_what_somebody_put_among_the_objects_is_looked_at(repository: Path) -> None:
    objects = repository / ".git/objects"
    write(objects, {"m.onnx": ONNX, "pack/pack-" + "a" * 40 + ".pack": b"PACK\0\0\0\x02" + b"1" * 90})
    found = {(finding.rule, finding.place.removeprefix(f"{objects}/")) for finding in sweep(repository).findings}
    assert ("plain-model", "m.onnx") in found
    assert ("not-read", "pack/pack-" + "a" * 40 + ".pack") in found


def test_a_folder_that_is_no_repository_hides_nothing_by_its_names(tmp_path: Path) -> None:
    name = "objects/ab/" + "c" * 38
    write(tmp_path, {name: ONNX})
    assert told(sweep(tmp_path), tmp_path) == {("plain-model", name)}
