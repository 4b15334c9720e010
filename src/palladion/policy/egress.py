"""The settings of what leaves: how much of a model, in model sizes, may go out in a day."""

from typing import Annotated

from msgspec import Meta

from palladion.policy.section import Section

SIZES_MAX = 10_000  # of models in a day: beyond, nothing is limited any more


def _sizes(description: str) -> Meta:
    return Meta(ge=0, le=SIZES_MAX, description=description)


class EgressPolicy(Section, frozen=True):
    """How much may leave, in model sizes: 1 is one whole model. 0 sets no limit (docs/egress.md)."""

    unseal_per_day: Annotated[
        float,
        _sizes("Models that one operator may have written in plaintext (`palladion unseal`) within 24 hours."),
    ] = 0.0
    deliver_per_day: Annotated[
        float,
        _sizes("Copies that are made for one recipient (`palladion deliver`) within 24 hours."),
    ] = 0.0
    all_per_day: Annotated[
        float,
        _sizes(
            "Both together, for all operators and recipients within 24 hours: names of either can be made up by "
            "whoever may make one."
        ),
    ] = 0.0
    answer_fraction_per_day: Annotated[
        float,
        _sizes(
            "Bytes of answers to one client in a UTC day, as a share of the sealed model's size: 0.5 is half a model. "
            "Of models that are registered here; of a small one, few answers are as large as it is."
        ),
    ] = 0.0
