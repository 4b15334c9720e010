"""What the sweep finds: rules with a severity and what to do, and findings, in the words of one report."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")


@dataclass(frozen=True)
class Rule:
    """A kind of finding: `id` is stable, for programs."""

    id: str
    severity: Severity
    title: str
    advice: str


_SEAL = "palladion protect FILE --name MODEL, or palladion seal PATH --opaque --name NAME; then delete the plaintext"

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.id: rule
        for rule in (
            Rule(
                "our-model", "critical", "An unsealed copy of one of our versions", "delete it: the version is sealed"
            ),
            Rule(
                "our-tensors",
                "critical",
                "An unsealed model with tensors of one of our versions",
                "find out whose it is: palladion prove copy FILE; then seal or delete it",
            ),
            Rule(
                "our-copy", "critical", "An unsealed copy that carries a recipient's fingerprint", "open a case for it"
            ),
            Rule("private-key", "critical", "A private key", "move it to an HSM or a key store, and replace it"),
            Rule(
                "palladion-identity",
                "critical",
                "A palladion identity: it opens what is sealed to it",
                "keep it at its own host, mode 600; palladion revoke and rewrap if others could read it",
            ),
            Rule("api-key", "high", "An API key of a gate", "palladion client key revoke, and give out a new one"),
            Rule("cloud-key", "high", "A credential of a cloud or a hub", "revoke it there, and give out a new one"),
            Rule("plain-model", "high", "A model in plaintext", _SEAL),
            Rule("training-state", "high", "A checkpoint with the state of an optimiser, in plaintext", _SEAL),
            Rule(
                "model-in-history",
                "high",
                "A model in the history of a repository",
                "deleting the file leaves it there: rewrite the history, and count it as known to all who cloned it",
            ),
            Rule("data-set", "medium", "A data set beside models, in plaintext", _SEAL),
            Rule(
                "keyring",
                "medium",
                "A keyring, whose keys are wrapped",
                "keep it in its installation alone: whoever has it can try passphrases for ever",
            ),
            Rule(
                "backup",
                "low",
                "A palladion backup: sealed, and open to whoever knows the owner's passphrase",
                "keep it where only its owner reads, apart from the installation",
            ),
            Rule("pickle", "low", "A pickle, which may hold a model or anything else", _SEAL),
            Rule("hub-model", "low", "A model from a hub, in its cache", "delete what is no longer used"),
            Rule("lfs-pointer", "low", "A model in large file storage, of which this names the content", _SEAL),
            Rule("public", "critical", "Strangers may read what lies here", "take away the public grant"),
            Rule(
                "not-blocked",
                "medium",
                "Nothing keeps this bucket from being made public",
                "turn on all four settings of block public access",
            ),
            Rule("readable", "high", "Everybody on this machine may read it", "chmod o-r FILE, or chmod 600 FILE"),
            Rule("writable", "high", "Others than its owner may change it", "chmod go-w FILE"),
            Rule(
                "open-folder",
                "high",
                "Anybody may put another file in its place",
                "chmod o-w FOLDER, or set its sticky bit",
            ),
            Rule("other-owner", "medium", "It belongs to another account", "chown it, or find out why"),
            Rule("not-read", "medium", "This could not be looked into", "look into it by other means"),
        )
    }
)


@dataclass(frozen=True)
class Finding:
    """One thing that lies where it should not: by which rule, where, why, and what to do.

    `version` names one of ours, such as fraud@3; `recipient` whose fingerprint it carries; `size` is in bytes.
    """

    rule: str
    place: str
    text: str
    severity: Severity
    advice: str
    format: str = ""
    version: str = ""
    recipient: str = ""
    size: int = 0


def found(
    rule: str,
    place: str,
    text: str,
    *,
    severity: Severity | None = None,
    advice: str = "",
    format: str = "",  # noqa: A002 (a model's)
    version: str = "",
    recipient: str = "",
    size: int = 0,
) -> Finding:
    """A finding of a rule, with its severity and advice unless others are given."""
    known = RULES[rule]
    return Finding(
        rule, place, text, severity or known.severity, advice or known.advice, format, version, recipient, size
    )


def at_least(severity: Severity, least: Severity) -> bool:
    """Whether one severity is not below another."""
    return SEVERITIES.index(severity) >= SEVERITIES.index(least)
