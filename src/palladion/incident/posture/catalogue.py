"""What could happen to a model, and what is done against it: every control that is judged, with its names elsewhere.

Ids are of MITRE ATLAS (techniques AML.T, mitigations AML.M; data 5.6.0), OWASP (ML 2023, LLM 2025), NIST (CSF 2.0 as
CSF:, AI RMF 1.0 as RMF:), the EU AI Act (articles) and ISO/IEC 42001:2023 (Annex A). They say what a control is about,
not that a framework is met. What RAND's security levels ask for is said once, in `CLAIM`.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["threat", "measure"]

CLAIM = (
    "Palladion helps with RAND's security levels 1 and 2, and with parts of 3. It claims nothing of 4 and 5, which "
    "need hardware that gives out no weights, and people whom no software can vet."
)


@dataclass(frozen=True)
class Control:
    """A threat that is answered, or a measure: `id` is stable, for programs."""

    id: str
    title: str
    kind: Kind
    ids: tuple[str, ...]


CONTROLS = (
    Control("extraction", "Extraction through the API", "threat", ("AML.T0024.002", "ML05:2023", "LLM10:2025")),
    Control("inversion", "Model inversion", "threat", ("AML.T0024.001", "ML03:2023")),
    Control("membership", "Membership inference", "threat", ("AML.T0024.000", "ML04:2023")),
    Control("reverse-engineering", "Reverse engineering", "threat", ("AML.T0014", "AML.T0063")),
    Control("insiders", "Theft by insiders", "threat", ("AML.T0025", "AML.T0012", "CSF:PR.AA-05")),
    Control("supply-chain", "Attacks on the supply chain", "threat", ("AML.T0010.003", "ML06:2023", "CSF:GV.SC-07")),
    Control("stolen-hardware", "Stolen hardware", "threat", ("AML.T0044", "CSF:PR.AA-06")),
    Control("social-engineering", "Social engineering", "threat", ("AML.T0012", "CSF:PR.AT-01")),
    Control("storage", "Careless storage", "threat", ("AML.T0035", "AML.T0055", "CSF:PR.DS-01")),
    Control("encryption-at-rest", "Encryption at rest (AES-256)", "measure", ("AML.M0012", "CSF:PR.DS-01")),
    Control("encryption-in-transit", "Encryption in transit (TLS)", "measure", ("AML.M0012", "CSF:PR.DS-02")),
    Control("hardware-keys", "Keys in HSMs and key services", "measure", ("AML.M0005", "CSF:PR.AA-05")),
    Control("trusted-execution", "Trusted execution environments", "measure", ("AML.M0005", "CSF:PR.DS-10")),
    Control("homomorphic", "Homomorphic encryption", "measure", ("CSF:PR.DS-10",)),
    Control("watermarks", "Watermarks in the model", "measure", ("AML.T0048.004", "ML05:2023")),
    Control("tracing", "Tracing a leak to its recipient", "measure", ("AML.M0025", "AML.T0048.004")),
    Control("answer-marks", "Marks in answers", "measure", ("AML.T0005.001", "LLM10:2025")),
    Control("identity", "Zero trust: everybody proves who he is", "measure", ("AML.M0019", "CSF:PR.AA-03")),
    Control("operators", "Roles, and a second person's decision", "measure", ("CSF:PR.AA-05", "EU AI Act 14")),
    Control("limits", "Rate limits and budgets", "measure", ("AML.M0004", "LLM10:2025")),
    Control("disclosure", "Answers that say no more than needed", "measure", ("AML.M0002", "LLM02:2025")),
    Control("usage-analysis", "Analysis of usage patterns", "measure", ("AML.M0015", "AML.M0024", "CSF:DE.AE-02")),
    Control("automatic-response", "Limiting and suspending by itself", "measure", ("AML.M0019", "CSF:RS.MI-01")),
    Control("alerts", "Alerts and escalation", "measure", ("CSF:DE.AE-06", "ISO 42001 A.8.4")),
    Control("decoys", "Decoys", "measure", ("AML.T0035", "CSF:DE.CM-09")),
    Control(
        "forensic-logs", "Forensic logs", "measure", ("AML.M0024", "CSF:PR.PS-04", "EU AI Act 12", "ISO 42001 A.6.2.8")
    ),
    Control("witnesses", "Logs that others vouch for", "measure", ("CSF:PR.PS-04", "EU AI Act 12")),
    Control("versions", "Version control of models", "measure", ("AML.M0025", "CSF:ID.AM-08", "ISO 42001 A.6.2.7")),
    Control(
        "audits",
        "Audits and penetration tests",
        "measure",
        ("CSF:ID.IM-02", "RMF:MEASURE 2.7", "EU AI Act 15", "ISO 42001 A.6.2.4"),
    ),
    Control("threat-intelligence", "Threat intelligence", "measure", ("CSF:ID.RA-02", "AML.T0008.005")),
    Control("containers", "Isolation of the gate", "measure", ("AML.M0005", "CSF:PR.IR-01")),
    Control("differential-privacy", "Differential privacy", "measure", ("AML.T0024.000", "RMF:MEASURE 2.10")),
    Control("federated-learning", "Federated learning", "measure", ("RMF:MEASURE 2.10",)),
    Control("hardening", "Adversarial training against extraction", "measure", ("AML.M0006", "AML.T0024.002")),
    Control("recovery", "Backups", "measure", ("CSF:PR.DS-11", "CSF:RC.RP-03")),
    Control("legal", "Patents, trade secrets, copyright", "measure", ("ML05:2023", "CSF:GV.OC-03")),
)
