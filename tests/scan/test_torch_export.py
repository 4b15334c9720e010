"""Archives of torch.export are numbers and known operators, or refused."""

from pathlib import Path

import pytest

from palladion.scan import scan_path
from tests.models import write
from tests.scan.corpus.hidden import export, graph_of
from tests.scan.corpus.run import BYTES_MAX, DOMAINS


def _verdict(path: Path, data: bytes) -> tuple[str, list[str]]:
    verdict = scan_path(write(path / "m.pt2", data), operator_domains=DOMAINS, bytes_max=BYTES_MAX)
    return verdict.format, [f"{item.grade} {item.rule}" for item in verdict.findings]


def test_bare_numbers_and_known_operators_are_accepted(tmp_path: Path) -> None:
    assert _verdict(tmp_path, export({})) == ("torch-export", [])


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("_operator.getitem", []),
        ("torch.ops.higher_order.cond", []),
        ("torch.ops.mine.run", ["suspicious graph-operator"]),
        ("shutil.rmtree", ["refused remote-code", "refused graph-operator"]),
    ],
)
def test_operators_are_judged_by_their_names(tmp_path: Path, target: str, found: list[str]) -> None:
    assert sorted(_verdict(tmp_path, export({"models/model.json": graph_of(target)}))[1]) == sorted(found)


@pytest.mark.torch
@pytest.mark.slow
def test_what_torch_exports_is_accepted(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(4, 3), (torch.randn(2, 4),)), path)
    assert _verdict(tmp_path, path.read_bytes()) == ("torch-export", [])
