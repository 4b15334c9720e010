"""Audits again and again: a unit and a timer of systemd, or a CronJob of Kubernetes. Each model has its own."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from palladion.errors import PolicyError
from palladion.gate.deploy.container import HOME
from palladion.gate.deploy.documents import Document, yaml
from palladion.gate.deploy.kubernetes import CLAIM, DATA, Work, job_documents
from palladion.gate.deploy.plan import Plan
from palladion.gate.deploy.routine import names as routine_names
from palladion.gate.deploy.routine import routine, routine_name, routine_timer

SECONDS_MAX = 24 * 3600  # a thorough audit takes a night
SECRET_BYTES_MAX = 1024 * 1024  # of all files of a secret (Kubernetes, MaxSecretSize)
JOB, KUSTOMIZATION = "audit.yaml", "kustomization.yaml"
# at night, at a minute of each model's own, so that audits of many models do not begin together
_CRON = {"daily": "2 * * *", "weekly": "2 * * 0", "monthly": "2 1 * *", "quarterly": "2 1 1,4,7,10 *"}
_CLAIM = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)


def names(model: str) -> tuple[str, str]:
    """What the unit and the timer of a model's audits are called. Raises PalladionError on what is no model's name."""
    return routine_names("redteam", model)


def unit(arguments: Sequence[str], *, home: Path, directory: Path, out: Path, program: str, user: str) -> str:
    """The unit that runs `palladion redteam run` with these arguments, at the lowest priority.

    It ends as failed where a bar fails (1) or nothing can be said (3). Writes to `directory` alone, the installation's,
    where the ledger is; `out` lies in it. Raises PolicyError on names that no file can hold.
    """
    return routine(
        [program, "--home", str(home), "redteam", "run", *arguments, "--out", str(out), "--anew"],
        description="Palladion red team", directory=directory, user=user, seconds_max=SECONDS_MAX,
    )  # fmt: skip


def timer(every: str) -> str:
    """The timer: `every` as systemd takes it (weekly, monthly, or a calendar event). Raises PolicyError."""
    return routine_timer("Run the Palladion red team", every)


@dataclass(frozen=True)
class Given:
    """What an audit in a cluster is given: its files by name, from a secret of the audit's own name, or a `claim`."""

    rows: str
    training: str = ""
    claim: str = ""

    @property
    def arguments(self) -> list[str]:
        """As `palladion redteam run` takes them, there."""
        return ["--rows", f"{DATA}/{self.rows}", *(["--training", f"{DATA}/{self.training}"] if self.training else [])]

    def source(self, name: str) -> Document:
        """Of the volume. Raises PolicyError where the claim's name is none."""
        if not self.claim:
            return {"secret": {"secretName": name, "defaultMode": 0o440}}
        if not _CLAIM.fullmatch(self.claim):
            raise PolicyError(f"{self.claim!r} is no name of a claim: lower-case letters, digits, '-' and '.'")
        return {"persistentVolumeClaim": {"claimName": self.claim, "readOnly": True}}


def job_of(model: str) -> str:
    """What the CronJob of a model's audits is called, and its secret. Raises PalladionError."""
    return routine_name("redteam", model)


def component(plan: Plan, model: str, given: Given, *, profile: str, every: str) -> dict[str, str]:
    """A Kustomize component for the base of `deploy kubernetes`, by file: a CronJob, its NetworkPolicy, and a patch.

    The audit asks nobody, runs on the gate's node, and keeps its reports in the gate's volume, which two pods of one
    node have then. Raises PolicyError where no pod can run so, PalladionError on what is no model's name.
    """
    name = job_of(model)
    out = f"{HOME}/{plan.policy.installation.directory}/audit-{model}"
    minute = int.from_bytes(sha256(model.encode()).digest()[:4]) % 60
    work = Work(
        name,
        {"app.kubernetes.io/name": "palladion-redteam", "app.kubernetes.io/instance": name},
        ["redteam", "run", model, *given.arguments, "--profile", profile, "--out", out, "--anew"],
        f"{minute} {_CRON[every]}",
        SECONDS_MAX,
        # for a model of some megabytes; what exceeds the limit is ended, and fails
        requests={"cpu": "500m", "memory": "512Mi"},
        limits={"cpu": "2", "memory": "4Gi"},
        data=given.source(name),
    )
    shared = [{"op": "replace", "path": "/spec/accessModes", "value": ["ReadWriteOnce"]}]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "resources": [JOB],
        "patches": [{"target": {"kind": "PersistentVolumeClaim", "name": CLAIM}, "patch": json.dumps(shared)}],
    }
    documents = "".join(f"---\n{yaml(item)}" for item in job_documents(plan, work))
    return {KUSTOMIZATION: f"---\n{yaml(kustomization)}", JOB: documents}
