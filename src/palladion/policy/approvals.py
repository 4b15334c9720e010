"""The settings of approvals: how many people have to agree before anything leaves."""

from typing import Annotated

from msgspec import Meta

from palladion.policy.section import Section


class ApprovalsPolicy(Section, frozen=True):
    """Several people before a copy is delivered or an original comes to lie on a disk (docs/approvals.md)."""

    needed: Annotated[
        int,
        Meta(
            ge=0,
            le=32,
            description="Approvals that a delivery, or an original in plaintext, needs: of registered approvers, none "
            "of whom asked for it. 0 needs none. More than what the owner's signed statement says counts at once; "
            "fewer count only after `palladion approval change`, which needs approvals itself.",
        ),
    ] = 0
    hours: Annotated[
        int,
        Meta(ge=1, le=168, description="Hours for which a request holds, unless it says otherwise."),
    ] = 8
    break_glass: Annotated[
        bool,
        Meta(
            description="Let --break-glass do without approvals in an emergency: it opens a case, and somebody else "
            "has to review it. It has to be allowed here and in the owner's signed statement."
        ),
    ] = False
