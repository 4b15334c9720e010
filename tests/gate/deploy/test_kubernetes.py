"""The Kustomize base: what the documents say, and what linters and Kubernetes' own schemas think of them."""

from typing import Any

import msgspec
import pytest

from palladion.errors import PolicyError
from palladion.gate.deploy.kubernetes import DATA, Work, base, job_documents, secrets_needed
from palladion.gate.deploy.plan import Address, make_plan
from palladion.policy import AccessPolicy, OperationsPolicy, Policy, RoutePolicy
from palladion.policy.encrypted import EncryptedPolicy
from palladion.policy.intelligence import FeedPolicy, IntelPolicy

from .plans import HERE, policy, with_operators

TLS = {"behind_proxy": False, "tls_certificate": "tls/gate.pem", "tls_key": "tls/gate.key"}
KUBERNETES = "1.32"
MODELS = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "models"}}}]


def _yaml() -> Any:
    return pytest.importorskip("yaml", reason="this needs PyYAML")


def _documents(of: Policy) -> dict[str, Any]:
    """The documents by kind."""
    loaded = [
        document
        for name, text in base(make_plan(of), "# the policy\n").items()
        if name.endswith(".yaml")
        for document in _yaml().safe_load_all(text)
    ]
    return {document["kind"]: document for document in loaded}


def _pod(of: Policy) -> Any:
    return _documents(of)["Deployment"]["spec"]["template"]["spec"]


def test_all_kinds_are_there_and_kustomize_lists_them() -> None:
    files = base(make_plan(policy()), "# the policy\n")
    listed = _yaml().safe_load(files["kustomization.yaml"])["resources"]
    assert sorted(listed) == sorted(name for name in files if name.endswith(".yaml") and name != "kustomization.yaml")
    assert files["palladion.toml"] == "# the policy\n"
    assert _documents(policy()).keys() == {
        *("Kustomization", "Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", "PersistentVolumeClaim")
    }


def test_a_pod_has_no_privilege_no_token_and_nothing_to_write_on_but_its_volume() -> None:
    pod = _pod(policy())
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in [*pod["containers"], *pod["initContainers"]]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
    (gate,) = pod["containers"]
    writable = {mount["name"] for mount in gate["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"installation", "scratch"}
    assert not any("hostPath" in volume or pod.get("hostNetwork") for volume in pod["volumes"])


def test_every_mount_has_its_volume() -> None:
    pod = _pod(policy())
    volumes = {volume["name"] for volume in pod["volumes"]}
    mounts = {mount["name"] for part in [*pod["containers"], *pod["initContainers"]] for mount in part["volumeMounts"]}
    assert mounts == volumes


def test_ports_probes_and_seconds_fit_the_policy() -> None:
    of = policy(HERE, listen="0.0.0.0:9999", **TLS)
    pod = _pod(of)
    (gate,) = pod["containers"]
    assert [port["containerPort"] for port in gate["ports"]] == [9999]
    assert {gate[probe]["httpGet"]["scheme"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")} == {
        "HTTPS"
    }
    assert pod["terminationGracePeriodSeconds"] == 7 + 20 + 30 + 10
    assert [port["port"] for port in _documents(of)["Service"]["spec"]["ports"]] == [9999]


def test_a_probe_shows_no_certificate_where_one_is_required() -> None:
    of = policy(HERE, **TLS, client_ca="tls/ca.pem", client_certificate="required")
    (gate,) = _pod(of)["containers"]
    assert gate["readinessProbe"]["tcpSocket"] == {"port": "api"}


def test_figures_have_a_port_only_where_they_can_be_reached() -> None:
    inside = msgspec.structs.replace(policy(), operations=OperationsPolicy(listen="127.0.0.1:8711"))
    outside = msgspec.structs.replace(policy(), operations=OperationsPolicy(listen="0.0.0.0:8711"))
    assert [port["name"] for port in _documents(inside)["Service"]["spec"]["ports"]] == ["api"]
    assert [port["name"] for port in _documents(outside)["Service"]["spec"]["ports"]] == ["api", "metrics"]
    assert len(_documents(outside)["NetworkPolicy"]["spec"]["ingress"]) == 2


def test_grpc_has_a_port_of_its_own_that_says_so_and_lets_callers_in() -> None:
    of = _documents(policy(grpc_listen="0.0.0.0:8712"))
    ports = of["Service"]["spec"]["ports"]
    assert [(port["name"], port["port"], port.get("appProtocol")) for port in ports] == [
        ("api", 8710, None),
        ("grpc", 8712, "grpc"),
    ]
    (gate,) = of["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert [(port["name"], port["containerPort"]) for port in gate["ports"]] == [("api", 8710), ("grpc", 8712)]
    (ingress,) = of["NetworkPolicy"]["spec"]["ingress"]
    assert [port["port"] for port in ingress["ports"]] == [8710, 8712]


def test_the_provider_of_operators_may_be_asked() -> None:
    alone = msgspec.structs.replace(policy(HERE), issuer=())
    of = with_operators(alone, issuer="https://10.0.0.7:8443/staff", client_id="palladion")
    (egress,) = _documents(of)["NetworkPolicy"]["spec"]["egress"]
    assert egress == {"to": [{"ipBlock": {"cidr": "10.0.0.7/32"}}], "ports": [{"port": 8443, "protocol": "TCP"}]}


def test_everything_is_denied_but_callers_and_the_servers_of_the_policy() -> None:
    spec = _documents(policy())["NetworkPolicy"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    (ingress,) = spec["ingress"]
    assert ingress["from"] == [{"namespaceSelector": {"matchLabels": {"palladion-gate-client": "true"}}}]
    ports = [[port["port"] for port in rule["ports"]] for rule in spec["egress"]]
    assert ports == [[53, 53], [8000], [8443], [443]]
    assert spec["egress"][2]["to"] == [{"ipBlock": {"cidr": "10.0.0.2/32"}}]


def test_a_gate_that_asks_nobody_may_ask_nobody() -> None:
    alone = msgspec.structs.replace(policy(HERE), issuer=())
    assert _documents(alone)["NetworkPolicy"]["spec"]["egress"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "to"),
    [
        ("vllm", [{"podSelector": {}}]),
        ("vllm.models.svc", MODELS),
        ("vllm.models.svc.cluster.local", MODELS),
        ("api.example.com", [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}}]),
        ("[fd00::1]", [{"ipBlock": {"cidr": "fd00::1/128"}}]),
    ],
)  # fmt: skip
def test_servers_are_named_as_closely_as_a_network_policy_can(host: str, to: object) -> None:
    route = RoutePolicy(model="llm", protocol="openai", upstream=f"http://{host}:8000")
    of = msgspec.structs.replace(policy(route), issuer=())
    assert _documents(of)["NetworkPolicy"]["spec"]["egress"][-1]["to"] == to


def test_secrets_are_the_folders_of_the_files_that_the_policy_names() -> None:
    needed = secrets_needed(make_plan(policy()))
    assert {name: str(folder) for name, folder in needed.items()} == {
        "palladion-keys": "/srv/palladion/keys",
        "palladion-tls": "/srv/palladion/tls",
    }


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"listen": "127.0.0.1:8710"}, "nobody reaches from another pod"),
        ({"listen": "unix:gate.sock"}, "nobody reaches from another pod"),
        ({"grpc_listen": "[::1]:8712"}, "gate.grpc_listen is .* nobody reaches from another pod"),
        ({"tls_certificate": "gate.pem", "tls_key": "gate.key"}, "lies beside palladion.toml"),
    ],
)
def test_what_no_pod_can_do_is_refused(gate: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        base(make_plan(policy(HERE, **gate)), "")


def test_a_file_beside_the_policy_gets_a_folder_to_go_to() -> None:
    of = msgspec.structs.replace(policy(HERE), access=AccessPolicy(policies="access.cedar"))
    with pytest.raises(PolicyError, match=r"access.cedar lies beside palladion.toml") as caught:
        base(make_plan(of), "")
    assert caught.value.hints == ("for example: etc/access.cedar",)


@pytest.mark.slow
def test_the_schemas_of_kubernetes_are_met() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="this needs kubernetes-validate")
    for of in (policy(), policy(HERE, **TLS), policy(grpc_listen="0.0.0.0:8712")):
        for kind, document in _documents(of).items():
            if kind != "Kustomization":
                validator.validate(document, KUBERNETES, strict=True)


FEEDS = (
    FeedPolicy(name="far", url="https://10.0.0.9/list", ca="tls/feed.pem"),
    FeedPolicy(name="taxii", url="https://taxii.example/c/1/", format="taxii", credentials="etc/login"),
    FeedPolicy(name="ours", file="palladion:harvests", format="stix", kind="queries"),
)


def _named(of: Policy) -> dict[tuple[str, str], Any]:
    texts = [text for name, text in base(make_plan(of), "").items() if name.endswith(".yaml")]
    found = [document for text in texts for document in _yaml().safe_load_all(text)]
    return {(item["kind"], item.get("metadata", {}).get("name", "")): item for item in found}


def test_feeds_are_refreshed_by_a_job_beside_a_gate_that_asks_nobody() -> None:
    of = msgspec.structs.replace(policy(HERE), issuer=(), feed=FEEDS)
    found = _named(of)
    assert found["NetworkPolicy", "palladion-gate"]["spec"]["egress"] == []
    asked = found["NetworkPolicy", "palladion-intel"]["spec"]
    assert asked["ingress"] == []
    assert asked["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.0.0.9/32"}}]
    labels = asked["podSelector"]["matchLabels"]
    job = found["CronJob", "palladion-intel"]["spec"]["jobTemplate"]["spec"]["template"]
    assert job["metadata"]["labels"] == labels
    assert labels != found["NetworkPolicy", "palladion-gate"]["spec"]["podSelector"]["matchLabels"]
    (container,) = job["spec"]["containers"]
    assert container["args"] == ["intel", "refresh"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    volumes = {volume["name"] for volume in job["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert {"palladion-tls", "palladion-etc"} <= volumes
    gate = found["Deployment", "palladion-gate"]["spec"]["template"]
    assert not volumes & {"palladion-tls", "palladion-etc"} & {item["name"] for item in gate["spec"]["volumes"]}
    (beside,) = job["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert beside["labelSelector"]["matchLabels"] == gate["metadata"]["labels"]
    assert found["PersistentVolumeClaim", "palladion-installation"]["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert {"palladion-tls", "palladion-etc"} <= secrets_needed(make_plan(of)).keys()


def test_a_gate_that_refreshes_feeds_may_ask_their_servers_and_needs_no_job() -> None:
    of = msgspec.structs.replace(policy(HERE), issuer=(), feed=FEEDS, intel=IntelPolicy(refresh=True))
    found = _named(of)
    assert ("CronJob", "palladion-intel") not in found
    assert len(found["NetworkPolicy", "palladion-gate"]["spec"]["egress"]) == 3
    assert {"palladion-tls", "palladion-etc"} <= {
        item["name"] for item in found["Deployment", "palladion-gate"]["spec"]["template"]["spec"]["volumes"]
    }
    claim = found["PersistentVolumeClaim", "palladion-installation"]["spec"]
    assert claim["accessModes"] == ["ReadWriteOncePod"]


@pytest.mark.slow
def test_the_schemas_of_kubernetes_are_met_by_the_job() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="this needs kubernetes-validate")
    for (kind, _), document in _named(msgspec.structs.replace(policy(HERE), feed=FEEDS)).items():
        if kind != "Kustomization":
            validator.validate(document, KUBERNETES, strict=True)


def test_a_pod_has_memory_for_the_processes_of_encrypted_queries_and_programs_lie_in_its_volume() -> None:
    sealed = EncryptedPolicy(model="scores", workers=2, memory_mib=1024, query_mib=4, keys_mib=100)
    pod = _pod(msgspec.structs.replace(policy(), encrypted=(sealed,)))
    assert pod["containers"][0]["resources"]["limits"]["memory"] == f"{1024 + 2 * 1024 + 16 * 4 + 100}Mi"
    assert _pod(policy())["containers"][0]["resources"]["limits"]["memory"] == "1Gi"
    named = msgspec.structs.replace(sealed, program="etc/scores.he")
    with pytest.raises(PolicyError, match="named by its file"):
        base(make_plan(msgspec.structs.replace(policy(), encrypted=(named,))), "")


def _work(**more: Any) -> Work:
    return Work("palladion-x", {"a": "x"}, ["x", "y"], "1 2 * * *", 60, {"cpu": "1"}, {"cpu": "2"}, **more)


def test_a_job_is_shut_in_like_the_gate_beside_it_and_asks_nobody() -> None:
    of = make_plan(policy(HERE))
    job, network = job_documents(of, _work(data={"secret": {"secretName": "rows"}}))
    assert (job["spec"]["concurrencyPolicy"], job["spec"]["schedule"]) == ("Forbid", "1 2 * * *")
    within = job["spec"]["jobTemplate"]["spec"]
    assert (within["activeDeadlineSeconds"], within["backoffLimit"]) == (60, 0)
    pod, gate = within["template"]["spec"], _pod(policy(HERE))
    for setting in ("automountServiceAccountToken", "enableServiceLinks", "securityContext"):
        assert pod[setting] == gate[setting]
    (container,) = pod["containers"]
    assert container["securityContext"] == gate["containers"][0]["securityContext"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["data"] == {"name": "data", "mountPath": DATA, "readOnly": True}
    assert {name for name, mount in mounts.items() if not mount.get("readOnly")} == {"installation", "scratch"}
    assert mounts.keys() <= {volume["name"] for volume in pod["volumes"]}
    assert network["spec"]["podSelector"]["matchLabels"] == within["template"]["metadata"]["labels"] == {"a": "x"}
    assert network["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert (network["spec"]["ingress"], network["spec"]["egress"]) == ([], [])


def test_a_job_may_ask_the_servers_that_it_names_alone() -> None:
    _, network = job_documents(make_plan(policy(HERE)), _work(servers=[Address("10.0.0.9", 443, secure=True)]))
    (egress,) = network["spec"]["egress"]
    assert egress["to"] == [{"ipBlock": {"cidr": "10.0.0.9/32"}}]


def test_a_job_beside_a_gate_that_no_pod_can_be_is_refused() -> None:
    with pytest.raises(PolicyError, match="nobody reaches from another pod"):
        job_documents(make_plan(policy(HERE, listen="127.0.0.1:8710")), _work())
