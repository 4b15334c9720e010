"""The settings of clients that resell: how many of their end users are kept, and what one that is not named means."""

from typing import Annotated, Literal

from msgspec import Meta

from palladion.policy.section import Section


class ResellersPolicy(Section, frozen=True):
    """Clients that ask for end users (`palladion client reseller`), who are judged as clients of their own."""

    end_users_max: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="End users of one reseller that are kept. Beyond, those who asked longest ago are forgotten, "
            "but for whoever the watch or a person ever put into another standing, or who is in a case: they do not "
            "count, up to ten times as many, and beyond that nobody new is judged apart. The reseller itself is judged "
            "by all that is asked, so inventing end users gains nothing.",
        ),
    ] = 100_000
    unnamed: Annotated[
        Literal["reseller", "refuse"],
        Meta(
            description="What a reseller's request without an end user is: judged as the reseller's alone, or refused."
        ),
    ] = "reseller"
