"""Policies of which files are made."""

from typing import Any

import msgspec

from palladion.policy import (
    GatePolicy,
    IssuerPolicy,
    OperationsPolicy,
    OperatorsPolicy,
    Policy,
    ProxyPolicy,
    RoutePolicy,
)

HERE = RoutePolicy(model="fraud")
CHAT = RoutePolicy(model="llm", protocol="openai", upstream="http://vllm.models:8000", upstream_key="keys/llm")
THERE = RoutePolicy(model="spam", protocol="open-inference", upstream="https://10.0.0.2:8443", upstream_ca="tls/ca.pem")


def policy(*routes: RoutePolicy, **gate: Any) -> Policy:
    """A policy of a gate in a cluster, that trusts a proxy."""
    return Policy(
        gate=GatePolicy(**{"listen": "0.0.0.0:8710", "behind_proxy": True, **gate}),
        proxy=ProxyPolicy(address_header="x-real-ip", user_header="x-user"),
        operations=OperationsPolicy(drain_seconds=7),
        issuer=(IssuerPolicy(url="https://login.example.com/acme", audience="gate"),),
        route=routes or (HERE, CHAT, THERE),
    )


def with_operators(of: Policy, **operators: Any) -> Policy:
    """The same policy, with operators who sign in so."""
    operations = msgspec.structs.replace(of.operations, listen="127.0.0.1:8711")
    return msgspec.structs.replace(of, operators=OperatorsPolicy(**operators), operations=operations)
