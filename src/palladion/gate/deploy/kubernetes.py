"""A Kustomize base for one gate: Deployment, Service, NetworkPolicy, disruption budget and volume, and a CronJob.

The last one is there where the policy has feeds that the gate does not refresh: it may ask servers, the gate need not.

One gate is one pod: its ledger has one writer. More gates are more of these bases, each with an installation of its
own, behind `envoy` or `haproxy`, which send each client to one of them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from palladion.errors import PolicyError
from palladion.gate.deploy.container import HOME, USER, check_reachable
from palladion.gate.deploy.documents import Document, yaml
from palladion.gate.deploy.plan import Address, Plan, absolute

IMAGE = "palladion-gate"
CLAIM = "palladion-installation"
DATA = "/data"  # where a job finds what it is given
_LABELS = {"app.kubernetes.io/name": "palladion-gate"}
_FEED_LABELS = {"app.kubernetes.io/name": "palladion-intel"}
_FEED_SCHEDULE = "17 * * * *"  # what is due is fetched; everybody else's jobs begin with the hour
_FEED_SECONDS_MAX = 900
_CALLER = {"palladion-gate-client": "true"}  # of namespaces whose pods may ask
_SCRAPER = {"palladion-gate-metrics": "true"}
_HOME = PurePosixPath(HOME)
_IDENTITY_SECRET = "palladion-identity"  # noqa: S105 (a name)
# keys are copied there, because the volumes of secrets cannot give a file to one user alone
_COPY = (
    "import os, shutil, sys; os.umask(0o077); os.makedirs(os.path.dirname(sys.argv[2]), exist_ok=True); "
    "shutil.copyfile(sys.argv[1], sys.argv[2])"
)


_POD: Mapping[str, Any] = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}


def base(plan: Plan, policy_text: str, *, storage: str = "10Gi") -> dict[str, str]:
    """The files of the base by name; `policy_text` is palladion.toml. Raises PolicyError where no pod can run so."""
    listen = _required(plan)
    documents: dict[str, list[Document]] = {
        "deployment.yaml": [_deployment(plan, listen)],
        "service.yaml": [_service(plan, listen)],
        "networkpolicy.yaml": [_network_policy(plan, listen)],
        "disruption.yaml": [_disruption()],
        "volume.yaml": [_claim(storage, shared=plan.refreshed_beside)],
    }
    if plan.refreshed_beside:
        documents["intel.yaml"] = job_documents(plan, _refreshing(plan))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(documents),
        "configMapGenerator": [{"name": "palladion-policy", "files": ["palladion.toml"]}],
        "images": [{"name": IMAGE, "newName": IMAGE, "newTag": "latest"}],
    }
    files = {name: "".join(f"---\n{yaml(item)}" for item in items) for name, items in documents.items()}
    return {"kustomization.yaml": f"---\n{yaml(kustomization)}", "palladion.toml": policy_text, **files}


def secrets_needed(plan: Plan) -> dict[str, PurePosixPath]:
    """The secrets that the base mounts, by name, and the folder of the policy that each one holds."""
    return _secrets([*plan.files, *plan.feed_files])


def _secrets(names: Iterable[str]) -> dict[str, PurePosixPath]:
    folders = dict.fromkeys(absolute(_HOME, name, _HOME).parent for name in names)
    return {_secret(folder): folder for folder in folders}


def _required(plan: Plan) -> Address:
    policy = plan.policy
    if plan.listen is None:
        raise PolicyError(
            f"gate.listen is {policy.gate.listen}, which nobody reaches from another pod", 'listen = "0.0.0.0:8710"'
        )
    check_reachable(plan, "from another pod")
    if policy.registry.url.startswith("sqlite") or policy.installation.directory.startswith(("/", "~")):
        raise PolicyError(
            "installation.directory and registry.url have to be left as they are: a volume is mounted there"
        )
    if any(item.program for item in policy.encrypted):
        raise PolicyError(
            "a program for encrypted queries is named by its file, and a secret that is mounted is its group's too",
            "seal it (palladion seal --opaque), promote it, and leave `program` empty: then it lies in the volume",
        )
    outside = [name for name in [*plan.files, *plan.feed_files] if absolute(_HOME, name, _HOME).parent == _HOME]
    if outside:
        raise PolicyError(
            f"{outside[0]} lies beside palladion.toml, and secrets are mounted as folders",
            f"for example: etc/{PurePosixPath(outside[0]).name}",
        )
    return plan.listen


def _deployment(plan: Plan, listen: Address) -> Document:
    pod = {
        **_POD,
        "terminationGracePeriodSeconds": plan.stop_seconds + 10,
        "initContainers": [_identity_copier(plan)],
        "containers": [_gate(plan, listen)],
        "volumes": _volumes(plan, plan.files),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "palladion-gate", "labels": _LABELS},
        "spec": {
            # the ledger has one writer: a second pod beside it could not open it
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": pod},
        },
    }


def _gate(plan: Plan, listen: Address) -> Document:
    ports = [{"name": "api", "containerPort": listen.port, "protocol": "TCP"}]
    if plan.grpc is not None:
        ports.append({"name": "grpc", "containerPort": plan.grpc.port, "protocol": "TCP"})
    if plan.operations is not None and not plan.operations.loopback:
        ports.append({"name": "metrics", "containerPort": plan.operations.port, "protocol": "TCP"})
    return {
        "name": "gate",
        "image": IMAGE,
        "args": ["serve"],
        "ports": ports,
        "env": [{"name": "HOME", "value": HOME}],
        "securityContext": _contained(),
        "resources": {
            # for a model of some megabytes; a large one needs its own size twice while a version is swapped
            "requests": {"cpu": "500m", "memory": "256Mi", "ephemeral-storage": "64Mi"},
            "limits": {"cpu": "2", "memory": _memory(plan), "ephemeral-storage": "256Mi"},
        },
        # models are opened before it listens: minutes, where they are large
        "startupProbe": {**_probe(plan, listen, "/health/live"), "periodSeconds": 2, "failureThreshold": 300},
        "livenessProbe": {**_probe(plan, listen, "/health/live"), "periodSeconds": 10, "failureThreshold": 6},
        "readinessProbe": {**_probe(plan, listen, "/health/ready"), "periodSeconds": 2, "failureThreshold": 1},
        "volumeMounts": _mounts(plan, plan.files),
    }


def _memory(plan: Plan) -> str:
    # a process of encrypted queries that the cluster kills for its memory takes the gate with it
    return f"{1024 + plan.encrypted_mib}Mi" if plan.encrypted_mib else "1Gi"


def _mounts(plan: Plan, names: Iterable[str]) -> list[Document]:
    return [
        {"name": "policy", "mountPath": f"{HOME}/palladion.toml", "subPath": "palladion.toml", "readOnly": True},
        {"name": "installation", "mountPath": f"{HOME}/{plan.policy.installation.directory}"},
        {"name": "identity", "mountPath": str(_identity(plan).parent), "readOnly": True},
        {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 (of the container's own)
        *({"name": name, "mountPath": str(folder), "readOnly": True} for name, folder in _secrets(names).items()),
    ]


@dataclass(frozen=True)
class Work:
    """What a job does again and again: `palladion` with these arguments, when (as cron says it), and what it may take.

    `files` are those of the policy that it needs. `data` is a volume's source, mounted read-only at DATA, if there is
    one; `servers` are those that it may ask. Names are DNS labels of 52 characters at most.
    """

    name: str
    labels: Mapping[str, str]
    arguments: Sequence[str]
    schedule: str
    seconds_max: int
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    files: Sequence[str] = ()
    servers: Sequence[Address] = ()
    data: Mapping[str, Any] | None = None


def job_documents(plan: Plan, work: Work) -> list[Document]:
    """A CronJob on the gate's node and in its volume, whose records a running gate writes, and its NetworkPolicy.

    The volume's claim has to be ReadWriteOnce. Raises PolicyError where no pod can run so.
    """
    _required(plan)
    beside = {"labelSelector": {"matchLabels": _LABELS}, "topologyKey": "kubernetes.io/hostname"}
    volumes, mounts = _volumes(plan, work.files), _mounts(plan, work.files)
    if work.data is not None:
        volumes.append({"name": "data", **work.data})
        mounts.append({"name": "data", "mountPath": DATA, "readOnly": True})
    container = {
        "name": "work",
        "image": IMAGE,
        "args": list(work.arguments),
        "env": [{"name": "HOME", "value": HOME}],
        "securityContext": _contained(),
        "resources": {"requests": dict(work.requests), "limits": dict(work.limits)},
        "volumeMounts": mounts,
    }
    pod = {
        **_POD,
        "restartPolicy": "Never",
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [beside]}},
        "initContainers": [_identity_copier(plan)],
        "containers": [container],
        "volumes": volumes,
    }
    template = {"metadata": {"labels": work.labels}, "spec": pod}
    job = {"backoffLimit": 0, "activeDeadlineSeconds": work.seconds_max, "template": template}
    cron_job = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": work.name, "labels": work.labels},
        "spec": {
            "schedule": work.schedule,
            "concurrencyPolicy": "Forbid",
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {"spec": job},
        },
    }
    return [cron_job, _network(work.name, work.labels, [], work.servers)]


def _refreshing(plan: Plan) -> Work:
    """What refreshes feeds every hour."""
    return Work(
        "palladion-intel",
        _FEED_LABELS,
        ["intel", "refresh"],
        _FEED_SCHEDULE,
        _FEED_SECONDS_MAX,
        # a feed of a million networks takes some 300 MB while it is read
        requests={"cpu": "100m", "memory": "128Mi"},
        limits={"cpu": "1", "memory": "512Mi"},
        files=plan.feed_files,
        servers=plan.feed_servers,
    )


def _identity_copier(plan: Plan) -> Document:
    name = _identity(plan).name
    return {
        "name": "identity",
        "image": IMAGE,
        "command": ["/usr/bin/python3", "-c", _COPY, f"/secret/{name}", f"/identity/{name}"],
        "securityContext": _contained(),
        "resources": {
            "requests": {"cpu": "50m", "memory": "32Mi"},
            "limits": {"cpu": "500m", "memory": "64Mi"},
        },
        "volumeMounts": [
            {"name": "identity-secret", "mountPath": "/secret", "readOnly": True},
            {"name": "identity", "mountPath": "/identity"},
        ],
    }


def _volumes(plan: Plan, names: Iterable[str]) -> list[Document]:
    return [
        {"name": "policy", "configMap": {"name": "palladion-policy"}},
        {"name": "installation", "persistentVolumeClaim": {"claimName": CLAIM}},
        {"name": "identity-secret", "secret": {"secretName": _IDENTITY_SECRET, "defaultMode": 0o440}},
        {"name": "identity", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "scratch", "emptyDir": {"sizeLimit": "64Mi"}},
        *({"name": name, "secret": {"secretName": name, "defaultMode": 0o440}} for name in _secrets(names)),
    ]


def _probe(plan: Plan, listen: Address, path: str) -> Document:
    if plan.policy.gate.client_ca and plan.policy.gate.client_certificate == "required":
        # a probe has no certificate to show
        return {"tcpSocket": {"port": "api"}}
    return {"httpGet": {"path": path, "port": "api", "scheme": "HTTPS" if listen.secure else "HTTP"}}


def _service(plan: Plan, listen: Address) -> Document:
    ports = [{"name": "api", "port": listen.port, "targetPort": "api", "protocol": "TCP"}]
    if plan.grpc is not None:
        # what balances connections would send all calls of one to one gate, and what speaks HTTP/1.1 none
        grpc = {"name": "grpc", "port": plan.grpc.port, "targetPort": "grpc", "protocol": "TCP", "appProtocol": "grpc"}
        ports.append(grpc)
    if plan.operations is not None and not plan.operations.loopback:
        ports.append({"name": "metrics", "port": plan.operations.port, "targetPort": "metrics", "protocol": "TCP"})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "palladion-gate", "labels": _LABELS},
        "spec": {"type": "ClusterIP", "selector": _LABELS, "ports": ports},
    }


def _network_policy(plan: Plan, listen: Address) -> Document:
    asked = [address.port for address in (listen, plan.grpc) if address is not None]
    ports = [{"port": port, "protocol": "TCP"} for port in asked]
    ingress: list[Document] = [{"from": [{"namespaceSelector": {"matchLabels": _CALLER}}], "ports": ports}]
    if plan.operations is not None and not plan.operations.loopback:
        port = {"port": plan.operations.port, "protocol": "TCP"}
        ingress.append({"from": [{"namespaceSelector": {"matchLabels": _SCRAPER}}], "ports": [port]})
    return _network("palladion-gate", _LABELS, ingress, plan.servers)


def _network(name: str, labels: Mapping[str, str], ingress: list[Document], servers: Iterable[Address]) -> Document:
    """A policy that lets in what `ingress` says, and out to these servers, and nothing else."""
    servers = list(servers)
    egress: list[Document] = []
    if any(not server.is_ip for server in servers):
        names = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
        asking = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
        egress.append({"to": [{**names, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}], "ports": asking})
    for server in servers:
        if server.loopback:
            continue  # of the same pod
        egress.append({"to": _peers(server), "ports": [{"port": server.port, "protocol": "TCP"}]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": labels},
        # both are denied but for what follows, and an empty list denies all
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }


def _peers(server: Address) -> list[Document]:
    if server.is_ip:
        return [{"ipBlock": {"cidr": f"{server.host}/{128 if ':' in server.host else 32}"}}]
    # service, service.namespace, or either with the ending of the cluster
    parts = re.sub(r"\.svc(\.cluster\.local)?$", "", server.host).split(".")
    if len(parts) == 1:
        return [{"podSelector": {}}]
    if len(parts) == 2 and server.host != ".".join(parts):
        return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": parts[1]}}}]
    # a policy knows no names: whoever wants it narrower puts an address in its place
    return [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}}]


def _disruption() -> Document:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "palladion-gate", "labels": _LABELS},
        # of one pod, none at all would keep nodes from ever being drained
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _LABELS}},
    }


def _claim(storage: str, *, shared: bool) -> Document:
    # of one pod alone, unless a job on the same node writes to it as well
    mode = "ReadWriteOnce" if shared else "ReadWriteOncePod"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "labels": _LABELS},
        "spec": {"accessModes": [mode], "resources": {"requests": {"storage": storage}}},
    }


def _contained() -> Mapping[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "privileged": False,
        "capabilities": {"drop": ["ALL"]},
    }


def _identity(plan: Plan) -> PurePosixPath:
    return absolute(_HOME, plan.policy.keys.host_identity, _HOME)


def _secret(folder: PurePosixPath) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", str(folder).removeprefix(HOME).lower()).strip("-")
    return f"palladion-{name}"[:63].rstrip("-")
