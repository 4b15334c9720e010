"""What exists: models, versions, recipients, clients, operators and incidents, in one SQL database.

Knows nothing of how a model is sealed, whose key opens what, or who may ask: those rooms hand in digests and texts.
"""

from palladion.registry.diff import VersionDiff
from palladion.registry.registry import Records, Registry
from palladion.registry.rows import (
    CalibrationRow,
    Canary,
    Client,
    ClientIdentity,
    ClientKey,
    ClientSource,
    Decoy,
    Delivery,
    Incident,
    IncidentEvent,
    ModelRow,
    NewVersion,
    Operator,
    Promotion,
    Proposal,
    Recipient,
    SealedFile,
    SignedPrivacy,
    StandingChange,
    Version,
    VersionTensor,
)

__all__ = [
    "CalibrationRow",
    "Canary",
    "Client",
    "ClientIdentity",
    "ClientKey",
    "ClientSource",
    "Decoy",
    "Delivery",
    "Incident",
    "IncidentEvent",
    "ModelRow",
    "NewVersion",
    "Operator",
    "Promotion",
    "Proposal",
    "Recipient",
    "Records",
    "Registry",
    "SealedFile",
    "SignedPrivacy",
    "StandingChange",
    "Version",
    "VersionDiff",
    "VersionTensor",
]
