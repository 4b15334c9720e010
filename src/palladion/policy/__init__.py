"""The policy of an installation: one file, `palladion.toml`, read into a frozen `Policy`."""

from palladion.policy.reader import POLICY_BYTES_MAX, POLICY_FILE, load_policy, parse_policy
from palladion.policy.sections import KeysPolicy, PassphrasePolicy, Policy
from palladion.policy.serving import GatePolicy, LimitsPolicy, RoutePolicy, WatchPolicy
from palladion.policy.template import settings, template, toml_string

__all__ = [
    "POLICY_BYTES_MAX",
    "POLICY_FILE",
    "GatePolicy",
    "KeysPolicy",
    "LimitsPolicy",
    "PassphrasePolicy",
    "Policy",
    "RoutePolicy",
    "WatchPolicy",
    "load_policy",
    "parse_policy",
    "settings",
    "template",
    "toml_string",
]
