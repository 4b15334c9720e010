"""What the house asks of every file and a linter cannot see."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import palladion

pytestmark = pytest.mark.slow  # `dev.py check` runs these

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "palladion"

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
# Where the limits do not fit, and why.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
# Modules without a test file of the same name, and what tests them instead.
TESTED_ELSEWHERE = {
    "__main__.py": "one line; tests/cli/test_main.py runs it",
    "registry/rows.py": "values without logic",
    "purposes.py": "values without logic; tests/test_keys.py and tests/tools/test_reference.py",
    "policy/access.py": "values without logic; tests/policy reads and writes all of them",
    "policy/auditing.py": "values without logic; tests/policy reads and writes all of them",
    "incident/posture/findings.py": "tests/incident/posture/test_assess.py",
    "incident/posture/models.py": "tests/incident/posture/test_assess.py",
    "incident/posture/services.py": "tests/incident/posture/test_assess.py",
    "redteam/audit/stage.py": "what a stage is, without logic",
    "policy/resellers.py": "values without logic; tests/policy reads and writes all of them",
    "policy/section.py": "values without logic; tests/policy reads and writes all of them",
    "policy/sections.py": "values without logic; tests/policy reads and writes all of them",
    "policy/serving.py": "values without logic; tests/policy reads and writes all of them",
    "gate/endpoint.py": "what an endpoint is, without logic",
    "gate/administration/effects.py": "tests/gate/administration/test_desk.py, which makes every change",
    "gate/administration/views.py": "tests/gate/administration/test_desk.py, which reads every page",
    "gate/protocols/protocol.py": "what a protocol is; tests/gate/protocols/test_predict.py",
    "gate/sources/source.py": "what a source is, without logic",
    "gate/questions.py": "tests/gate/test_gate.py asks them through the gate",
    "gate/stages.py": "tests/gate/test_gate.py goes through them",
    "registry/migrations/env.py": "runs inside alembic; tests/registry/test_schema.py",
    "registry/migrations/versions/0001_first_tables.py": "tests/registry/test_schema.py",
    "registry/migrations/versions/0002_gate_and_watch.py": "tests/registry/test_schema.py",
    "registry/migrations/versions/0003_deliveries.py": "tests/registry/test_schema.py",
    "registry/migrations/versions/0004_client_identities.py": "tests/registry/test_schema.py",
    "registry/migrations/versions/0005_canaries.py": "tests/registry/test_schema.py",
    "registry/migrations/versions/0006_client_copies.py": "tests/registry/test_schema.py",
    "registry/migrations/versions/0007_proposals.py": "tests/registry/test_schema.py",
    "registry/migrations/versions/0008_learning_curves.py": "tests/registry/test_schema.py",
    "registry/migrations/versions/0009_decoys.py": "tests/registry/test_schema.py",
    "registry/migrations/versions/0010_verdicts.py": "tests/registry/test_schema.py",
    "registry/migrations/versions/0011_end_users.py": "tests/registry/test_schema.py",
    "registry/migrations/versions/0012_approvals.py": "tests/registry/test_schema.py",
    "registry/migrations/versions/0013_privacy.py": "tests/registry/test_schema.py",
    "registry/migrations/versions/0014_decoy_files.py": "tests/registry/test_schema.py",
    "registry/privacy_tables.py": "tests/registry/test_privacy.py",
    "gate/checks.py": "tests/gate/test_server.py",
    "gate/brokered.py": "a real gate and a real broker; tests/gate/test_brokered_service.py",
    "broker/asked.py": "tests/broker/test_broker.py",
    "broker/opening.py": "tests/broker/test_server.py and tests/cli/test_key_broker.py",
    "host/broker_attest.py": "tests/broker/test_broker.py, by evidence of synthetic hardware; tests/broker/test_tpm.py",
    "sweep/whole.py": "tests/sweep/test_judge.py",
    "private/federated/layout.py": "tests/private/federated/test_rounds.py",
    "private/federated/messages.py": "tests/private/federated/test_aggregation.py, by whole rounds",
    "private/federated/signing.py": "tests/private/federated/test_aggregation.py, by whole rounds",
    "scan/keras_names.py": "names without logic; tests/scan/test_keras.py",
    "gate/encrypted/endpoint.py": "tests/gate/encrypted/test_service.py, by a real gate and a real client",
    "gate/encrypted/workers.py": "real processes; tests/gate/encrypted/test_service.py",
    "policy/encrypted.py": "values without logic; tests/policy reads and writes all of them",
    "private/homomorphic/columns.py": "tests/private/homomorphic/test_client.py, by whole answers",
    "private/homomorphic/evaluate.py": "tests/private/homomorphic/test_client.py, by whole answers",
    "private/homomorphic/library.py": "one import; tests/private/homomorphic",
    "private/homomorphic/operators.py": "tests/private/homomorphic/test_polynomial.py and test_network.py",
    "private/homomorphic/parameters.py": "tests/private/homomorphic/test_compile.py",
    "private/homomorphic/retrain.py": "tests/private/homomorphic/test_compile.py",
    "host/tensors.py": "tests/host/test_load.py",
    "incident/dossier/verifier/findings.py": "a name for what does not hold",
    "lifecycle/reading.py": "tests/lifecycle/test_protect.py and test_seal.py",
    "lifecycle/numbering.py": "tests/lifecycle/test_protect.py and test_reconcile.py",
    "model/model.py": "values without logic",
    "model/block_layouts.py": "tests/model/test_blocks.py, which reads and writes blocks of every layout",
    "mark/align/alignment.py": "tests/mark/align/test_network.py, which aligns whole networks by it",
    "mark/align/realigned.py": "values without logic",
    "model/graph.py": "values without logic",
    "model/onnx_schema.py": "tables; tests/model/test_onnx.py compares what they read with the reference package",
    "model/onnx_tensors.py": "tests/model/test_onnx.py, which reads them inside whole files",
    "model/onnx_types.py": "tests/model/test_onnx.py, which reads them inside whole files",
    "scan/verdict.py": "tests/scan/test_scanner.py",
    "attest/claims.py": "values without logic",
    "attest/evidence.py": "tests/attest/snp/test_verifier.py has its limits; values otherwise",
    "attest/snp/endorsement.py": "tests/attest/snp/test_verifier.py, with certificates that are wrong in one thing",
    "attest/snp/report.py": "tests/attest/snp/test_verifier.py, bit by bit",
    "attest/tdx/collateral.py": "tests/attest/tdx/test_verifier.py, with collateral that is wrong in one thing",
    "attest/tdx/pck.py": "tests/attest/tdx/test_verifier.py, and the fuzz target",
    "attest/tdx/quote.py": "tests/attest/tdx/test_verifier.py, bit by bit",
}


def _modules() -> Iterator[Path]:
    yield from sorted(SOURCE.rglob("*.py"))


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def _tracked() -> list[Path]:
    """The files git knows or would add; all of them where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this needs git and a checkout")
    return [ROOT / line for line in listed if (ROOT / line).is_file()]


def test_files_are_as_long_as_one_idea() -> None:
    long = {_name(path) for path in _modules() if len(path.read_text().splitlines()) > FILE_LINES_MAX}
    assert long == set(LONG_FILES)


@pytest.mark.slow
def test_functions_can_be_read_at_a_glance() -> None:
    long = {
        f"{_name(path)}:{node.name}"
        for path in _modules()
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > FUNCTION_LINES_MAX
    }
    assert long == set(LONG_FUNCTIONS)


def test_the_product_asserts_nothing_since_python_can_be_told_to_skip_it() -> None:
    found = [
        f"{_name(path)}:{node.lineno}"
        for path in _modules()
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_every_module_says_what_it_owns() -> None:
    assert [_name(path) for path in _modules() if not ast.get_docstring(_tree(path))] == []


def test_tests_mirror_the_source() -> None:
    missing = []
    for path in _modules():
        relative = path.relative_to(SOURCE)
        if path.name == "__init__.py" or relative.as_posix() in TESTED_ELSEWHERE:
            continue
        if relative.parts[0] == "cli":
            continue  # tests/cli/sessions runs every command; test_docs checks that none is left out
        test = ROOT / "tests" / relative.parent / f"test_{path.name}"
        if not test.is_file():
            missing.append(relative.as_posix())
    assert missing == []
    assert [name for name in TESTED_ELSEWHERE if not (SOURCE / name).is_file()] == []


def test_nothing_is_left_to_do_in_the_code() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    found = [path.name for path in _tracked() if path.suffix == ".py" and marks.search(path.read_text())]
    assert found == []


def test_no_file_names_a_registry_or_this_machine() -> None:
    # spelt in pieces, so that this file does not name them either
    forbidden = [
        "pypi" + ".org",
        "files.python" + "hosted",
        "registry.npm" + "js",
        "deb.debian" + ".org",
        "/wo" + "rk/",
    ]
    found = []
    for path in _tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {word}" for word in forbidden if word in text]
    assert found == []


def test_the_changelog_has_an_unreleased_section_or_this_version_on_top() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased" or headings[0].startswith(palladion.__version__)


def test_decisions_are_numbered_without_gaps_and_name_their_price() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        sections = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
        assert sections == ["Status", "Context", "Decision", "Consequences"], page.name


def test_links_between_our_pages_lead_somewhere() -> None:
    broken = []
    for page in [path for path in _tracked() if path.suffix == ".md"]:
        targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        ours = [target for target in targets if not target.startswith(("http:", "https:", "mailto:"))]
        broken += [f"{page.relative_to(ROOT)} → {target}" for target in ours if not (page.parent / target).exists()]
    assert broken == []
