"""The settings of audits by the red team: what is spent, and the bars that the model has to hold."""

from typing import Annotated

from msgspec import Meta

from palladion.policy.section import Section

_NO_BAR = "1 sets no bar."


class RedteamPolicy(Section, frozen=True):
    """What `palladion redteam run` may spend, and which figures fail an audit (docs/redteam.md)."""

    queries: Annotated[
        int,
        Meta(
            ge=1000,
            le=100_000_000,
            description="Queries that all attacks of one audit may ask together; each row is one.",
        ),
    ] = 200_000
    extraction_fidelity: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Fidelity that the best thief may reach within extraction_queries, behind the door that "
            f"trusted clients get. {_NO_BAR}",
        ),
    ] = 1.0
    extraction_queries: Annotated[
        int,
        Meta(ge=10, le=1_000_000, description="Queries of the thief whose fidelity is held against the bar."),
    ] = 1000
    distillation_gain: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Part of a language model's answers that the best student may have learnt within "
            "distillation_queries, beyond what one does that was taught other texts, behind the same door. "
            f"{_NO_BAR}",
        ),
    ] = 1.0
    distillation_queries: Annotated[
        int,
        Meta(
            ge=100,
            le=1_000_000,
            description="Queries of the thief whose student is held against the bar: 100, 400, or what the profile "
            "has beyond.",
        ),
    ] = 400
    membership_tpr: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Share of training rows that the strongest attack may recognise at 0.1 % of false alarms, "
            f"behind the same door. {_NO_BAR}",
        ),
    ] = 1.0
    membership_auc: Annotated[
        float,
        Meta(ge=0.5, le=1, description=f"Area under the ROC curve of the strongest attack on membership. {_NO_BAR}"),
    ] = 1.0
    removal_log10_p: Annotated[
        float,
        Meta(
            ge=-1_000_000,
            le=0,
            description="log10 of the p-value that attacks on the owner's mark may leave at most where the copy stays "
            "useful, such as -9. 0 sets no bar.",
        ),
    ] = 0.0
    overdue_days: Annotated[
        int,
        Meta(
            ge=1,
            le=3650,
            description="Days after which `palladion doctor` says that a served model was not audited.",
        ),
    ] = 90
