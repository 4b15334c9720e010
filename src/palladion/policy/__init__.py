"""The policy of an installation: one file, `palladion.toml`, read into a frozen `Policy`."""

from palladion.policy.access import AccessPolicy, IssuerPolicy, ProxyPolicy
from palladion.policy.approvals import ApprovalsPolicy
from palladion.policy.attestation import AttestationPolicy
from palladion.policy.auditing import RedteamPolicy
from palladion.policy.broker import BrokerPolicy, ReleasePolicy
from palladion.policy.egress import EgressPolicy
from palladion.policy.limits import ContractPolicy, LimitsPolicy
from palladion.policy.operations import OperationsPolicy
from palladion.policy.operators import OperatorsPolicy
from palladion.policy.reader import POLICY_BYTES_MAX, POLICY_FILE, load_policy, parse_policy
from palladion.policy.sections import KeysPolicy, PassphrasePolicy, Policy
from palladion.policy.serving import GatePolicy, RoutePolicy
from palladion.policy.template import settings, template, toml_string
from palladion.policy.watching import WatchPolicy

__all__ = [
    "POLICY_BYTES_MAX",
    "POLICY_FILE",
    "AccessPolicy",
    "ApprovalsPolicy",
    "AttestationPolicy",
    "BrokerPolicy",
    "ContractPolicy",
    "EgressPolicy",
    "GatePolicy",
    "IssuerPolicy",
    "KeysPolicy",
    "LimitsPolicy",
    "OperationsPolicy",
    "OperatorsPolicy",
    "PassphrasePolicy",
    "Policy",
    "ProxyPolicy",
    "RedteamPolicy",
    "ReleasePolicy",
    "RoutePolicy",
    "WatchPolicy",
    "load_policy",
    "parse_policy",
    "settings",
    "template",
    "toml_string",
]
