"""Rules for nftables and Kubernetes that shut model servers in: nobody but the gate asks them, and they ask nobody.

What runs on the gate's own machine is kept by the user of whoever asks; what runs elsewhere by the gate's address, in
rules for that machine.
"""

import json
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from palladion.errors import PolicyError
from palladion.gate.deploy.plan import Address, plain
from palladion.gate.upstream.address import parse_address
from palladion.policy import Policy

GATE_NAME, SERVER_NAME = "palladion-gate.nft", "palladion-server.nft"
KUBERNETES_NAME = "palladion-upstreams.yaml"
_GATE_LABELS = {"app.kubernetes.io/name": "palladion-gate"}  # of the base that `deploy kubernetes` writes
_SERVER_LABELS = {"palladion-upstream": "true"}


def model_servers(policy: Policy) -> list[Address]:
    """The model servers of a policy that have a port, each once. Raises PolicyError where there is none."""
    places = [parse_address(route.upstream, insecure_http=True) for route in policy.route if route.upstream]
    found = dict.fromkeys(Address(place.host, place.port, place.secure) for place in places if not place.unix_path)
    if not found:
        raise PolicyError("no route asks a model server by a port", "sockets are kept by their mode: chmod 660")
    return list(found)


def rules(servers: Sequence[Address], *, gate: str, user: str) -> dict[str, str]:
    """Rulesets for nft(8) by file name: of the gate's machine, by `user`, and of the others, by the `gate`'s address.

    Each is for its own machines alone: the second lets nothing out. Raises PolicyError for an address that is none, and
    for a user's name that no file can hold.
    """
    try:
        source = ip_address(gate)
    except ValueError:
        raise PolicyError(f"{gate!r} is no address: rules know no names", "--gate 192.0.2.7") from None
    own = sorted({server.port for server in servers if server.loopback})
    others = sorted({server.port for server in servers if not server.loopback})
    found = {}
    if own:
        found[GATE_NAME] = _here(own, plain(user, what="the user"))
    if others:
        found[SERVER_NAME] = _there(others, source)
    return found


def _here(ports: Sequence[int], user: str) -> str:
    listed = ", ".join(map(str, ports))
    return f"""#!/usr/sbin/nft -f
# Made by palladion deploy upstreams, for the machine of the gate: of its users only the gate's asks model servers here.
table inet palladion_upstreams {{
  chain output {{
    type filter hook output priority 0; policy accept;
    oif "lo" tcp dport {{ {listed} }} meta skuid != "{user}" reject with tcp reset
  }}
  chain input {{
    type filter hook input priority 0; policy accept;
    iif != "lo" tcp dport {{ {listed} }} drop
  }}
}}
"""


def _there(ports: Sequence[int], gate: IPv4Address | IPv6Address) -> str:
    listed = ", ".join(map(str, ports))
    family, name = ("ip", "ipv4") if gate.version == 4 else ("ip6", "ipv6")
    return f"""#!/usr/sbin/nft -f
# Made by palladion deploy upstreams, for each machine of a model server and no other: nothing gets out but answers.
table inet palladion_server {{
  chain input {{
    type filter hook input priority 0; policy accept;
    iif "lo" accept
    tcp dport {{ {listed} }} {family} saddr != {gate} drop
    tcp dport {{ {listed} }} meta nfproto != {name} drop
  }}
  chain output {{
    type filter hook output priority 0; policy drop;
    oif "lo" accept
    ct state established,related accept
  }}
}}
"""


def network_policy(servers: Sequence[Address]) -> str:
    """A NetworkPolicy for the pods of model servers that carry `palladion-upstream: "true"`, as YAML (JSON is YAML)."""
    policy: dict[str, Any] = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "palladion-upstreams"},
        "spec": {
            "podSelector": {"matchLabels": _SERVER_LABELS},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": _GATE_LABELS}}],
                    "ports": [{"protocol": "TCP", "port": port} for port in sorted({item.port for item in servers})],
                }
            ],
            # an empty list denies all: a model server asks nobody
            "egress": [],
        },
    }
    return "# Made by palladion deploy upstreams.\n" + json.dumps(policy, indent=2) + "\n"
