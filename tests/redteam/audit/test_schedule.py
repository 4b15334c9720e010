"""Units and CronJobs of audits: what runs, what it may write, and names that would be more than names."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from palladion.cli.redteam import run
from palladion.errors import PalladionError, PolicyError
from palladion.gate.deploy.kubernetes import base
from palladion.gate.deploy.plan import make_plan
from palladion.redteam.audit.schedule import Given, component, job_of, names, timer, unit
from tests.gate.deploy.plans import HERE, policy

PLACES: dict[str, Any] = {
    "home": Path("/srv/palladion"),
    "directory": Path("/srv/palladion/.palladion"),
    "out": Path("/srv/palladion/.palladion/audit-fraud"),
    "program": "/usr/bin/palladion",
    "user": "palladion",
}


def test_it_runs_the_audit_anew_and_writes_to_the_installation_alone() -> None:
    lines = unit(["fraud", "--rows", "/srv/rows.npz"], **PLACES).splitlines()
    (command,) = (line for line in lines if line.startswith("ExecStart="))
    assert command == (
        'ExecStart="/usr/bin/palladion" "--home" "/srv/palladion" "redteam" "run" "fraud" "--rows" "/srv/rows.npz" '
        '"--out" "/srv/palladion/.palladion/audit-fraud" "--anew"'
    )
    assert [line for line in lines if line.startswith("ReadWrite")] == ['ReadWritePaths="/srv/palladion/.palladion"']
    assert "ProtectSystem=strict" in lines


@pytest.mark.parametrize("name", ["a\nExecStart=/bin/sh", 'a"b', "%h", "$HOME"])
def test_a_name_that_is_more_than_a_name_is_refused(name: str) -> None:
    with pytest.raises(PolicyError):
        unit([name], **PLACES)
    with pytest.raises(PolicyError):
        unit(["fraud"], **PLACES | {"user": name})
    with pytest.raises(PolicyError):
        timer(name)
    with pytest.raises(PolicyError):
        unit(["fraud"], **PLACES | {"directory": Path(name)})
    with pytest.raises(PalladionError):
        names(name)


def test_each_model_has_units_of_its_own() -> None:
    assert names("fraud") == ("palladion-redteam-fraud.service", "palladion-redteam-fraud.timer")
    assert names("fraud")[0] != names("scores")[0]


def test_the_timer_makes_up_for_what_it_slept_through() -> None:
    lines = timer("monthly").splitlines()
    assert {"OnCalendar=monthly", "Persistent=true", "WantedBy=timers.target"} <= set(lines)


KUBERNETES = "1.32"
ROWS = Given("rows.npz")


def _read(model: str = "fraud", given: Given = ROWS, every: str = "monthly") -> dict[str, Any]:
    """The documents of a component, by kind."""
    reader = pytest.importorskip("yaml", reason="this needs PyYAML")
    texts = component(make_plan(policy(HERE)), model, given, profile="standard", every=every).values()
    return {item["kind"]: item for text in texts for item in reader.safe_load_all(text)}


def _pod(found: dict[str, Any]) -> Any:
    return found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_a_cron_job_runs_an_audit_that_the_command_line_knows() -> None:
    (container,) = _pod(_read(given=Given("rows.npz", "training.npz")))["containers"]
    assert container["args"] == [
        *("redteam", "run", "fraud", "--rows", "/data/rows.npz", "--training", "/data/training.npz"),
        *("--profile", "standard", "--out", "/srv/palladion/.palladion/audit-fraud", "--anew"),
    ]
    known = {option for item in run.params for option in item.opts}
    assert {item for item in container["args"] if item.startswith("--")} <= known


def test_a_cron_job_asks_nobody_and_does_not_overtake_itself() -> None:
    found = _read()
    assert found["CronJob"]["spec"]["concurrencyPolicy"] == "Forbid"
    assert _pod(found)["automountServiceAccountToken"] is False
    assert found["NetworkPolicy"]["spec"]["egress"] == []
    assert found["NetworkPolicy"]["spec"]["ingress"] == []
    chosen = found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    assert chosen == found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert chosen["app.kubernetes.io/name"] != "palladion-gate"


def test_rows_come_from_a_secret_or_from_a_claim_and_cannot_be_written() -> None:
    for given, source in [
        (ROWS, {"secret": {"secretName": "palladion-redteam-fraud", "defaultMode": 0o440}}),
        (Given("rows.npz", claim="audits"), {"persistentVolumeClaim": {"claimName": "audits", "readOnly": True}}),
    ]:
        pod = _pod(_read(given=given))
        assert {"name": "data", **source} in pod["volumes"]
        assert {"name": "data", "mountPath": "/data", "readOnly": True} in pod["containers"][0]["volumeMounts"]


@pytest.mark.parametrize("claim", ["Audits", "a b", "-a", "a" * 254, "a\n"])
def test_what_is_no_name_of_a_claim_is_refused(claim: str) -> None:
    with pytest.raises(PolicyError, match="no name of a claim"):
        _read(given=Given("rows.npz", claim=claim))


@pytest.mark.parametrize("model", ["../x", "a b", "a\n", "https://models.example/x"])
def test_what_is_no_name_of_a_model_has_no_job(model: str) -> None:
    with pytest.raises(PalladionError):
        _read(model)


def test_each_model_has_a_job_and_a_minute_of_its_own() -> None:
    jobs = [_read(model)["CronJob"] for model in ("fraud", "scores", "x" * 64)]
    assert len({job["metadata"]["name"] for job in jobs}) == 3
    assert len({job["spec"]["schedule"] for job in jobs}) == 3
    assert [job["metadata"]["name"] for job in jobs[:2]] == [job_of("fraud"), job_of("scores")]
    assert all(len(job["metadata"]["name"]) <= 52 for job in jobs)


@pytest.mark.parametrize(
    ("every", "rest"),
    [("daily", "2 * * *"), ("weekly", "2 * * 0"), ("monthly", "2 1 * *"), ("quarterly", "2 1 1,4,7,10 *")],
)
def test_how_often_is_said_as_cron_says_it(every: str, rest: str) -> None:
    minute, _, found = _read(every=every)["CronJob"]["spec"]["schedule"].partition(" ")
    assert found == rest
    assert 0 <= int(minute) <= 59


@pytest.mark.slow
def test_the_schemas_of_kubernetes_are_met() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="this needs kubernetes-validate")
    for given in (ROWS, Given("rows.npz", "training.npz", "audits")):
        found = _read("x" * 64, given)
        for kind in ("CronJob", "NetworkPolicy"):
            validator.validate(found[kind], KUBERNETES, strict=True)


@pytest.mark.service
def test_kustomize_adds_it_to_the_base_with_its_policy_and_a_volume_for_two_pods(tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    reader = pytest.importorskip("yaml", reason="this needs PyYAML")
    if kubectl is None:
        pytest.skip("this needs kubectl")
    plan = make_plan(policy(HERE))
    audit = component(plan, "fraud", ROWS, profile="quick", every="daily")
    for folder, texts in ((tmp_path, base(plan, "# the policy\n")), (tmp_path / "audit", audit)):
        folder.mkdir(exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text)
    with (tmp_path / "kustomization.yaml").open("a") as file:
        file.write("components: [audit]\n")
    # whatever cluster this machine knows is no business of this
    alone = {"HOME": str(tmp_path), "KUBECONFIG": "/dev/null"}
    command = [kubectl, "kustomize", str(tmp_path)]
    built = subprocess.run(command, capture_output=True, check=True, timeout=300, env=alone)
    found = {item["kind"]: item for item in reader.safe_load_all(built.stdout)}
    (named,) = (item["configMap"]["name"] for item in _pod(found)["volumes"] if "configMap" in item)
    assert named == found["ConfigMap"]["metadata"]["name"] != "palladion-policy"
    assert _pod(found)["containers"][0]["image"] == "palladion-gate:latest"
    assert found["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteOnce"]
