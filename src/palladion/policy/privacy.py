"""The settings of private answers, `privacy = { … }` in a route: the mechanism, what each answer costs, the budgets."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from palladion.errors import PolicyError
from palladion.policy.section import Section

if TYPE_CHECKING:
    from palladion.policy.serving import RoutePolicy


class PrivacyPolicy(Section, frozen=True):
    """Noise with a differential-privacy guarantee on every answer of a route, and the budgets that it is paid from."""

    mechanism: Annotated[
        Literal["none", "noisy-max", "laplace", "gaussian"],
        Meta(
            description="none answers without noise; noisy-max answers with a label, drawn by the scores; laplace and "
            "gaussian answer with all scores under noise."
        ),
    ] = "none"
    epsilon: Annotated[
        float,
        Meta(
            ge=1e-9, le=100, description="What one answered row costs; of gaussian, the ε that it has at delta alone."
        ),
    ] = 0.1
    delta: Annotated[
        float,
        Meta(
            gt=0, le=0.01, description="The δ at which what was spent is stated; less than one in the rows of training."
        ),
    ] = 1e-6
    sensitivity: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="By how much a model that learnt from one row more or less may differ in any score. 1 is the "
            "whole range and assumes nothing; less is an assumption that nobody proves (docs/privacy.md).",
        ),
    ] = 1.0
    epsilon_per_client: Annotated[
        float, Meta(gt=0, le=1000, description="Lifetime budget of each client on the model, over all its versions.")
    ] = 8.0
    epsilon_total: Annotated[
        float,
        Meta(gt=0, le=10_000, description="Lifetime budget of all clients together, who can pool what they were told."),
    ] = 64.0

    @property
    def is_on(self) -> bool:
        """Whether answers get noise."""
        return self.mechanism != "none"


def check_privacy(routes: Sequence["RoutePolicy"], encrypted: Collection[str] = ()) -> None:
    """Raise PolicyError where a private route has what tells more than its noise allows, or another tells it all.

    `encrypted` are names of models whose programs answer without noise.
    """
    for route in routes:
        if not route.privacy.is_on:
            continue
        if route.model in encrypted:
            raise PolicyError(
                f"route {route.route} answers privately, and [[encrypted]] answers from {route.model} without noise",
                "what is computed under encryption cannot be given noise: leave one of the two out",
            )
        others = [item for item in routes if item.model == route.model and item.privacy != route.privacy]
        if others:
            raise PolicyError(
                f"route {route.route} answers privately, and {others[0].route} answers from the same model otherwise: "
                "what the one holds back, the other tells",
                "give all routes of a model the same privacy",
            )
        wrong = {
            "marks answers by what the model said without noise (set flipped = 0)": route.flipped > 0,
            "refuses queries by what the model said without noise (set abstain = 0)": route.abstain > 0,
            'perturbs what has noise already (set perturbation = "none")': route.perturbation != "none",
            "has no class scores to put noise on": route.kind not in {"auto", "classes"},
            f"speaks {route.protocol}, whose answers cannot have noise": route.protocol in {"openai", "json"},
        }
        for what, is_so in wrong.items():
            if is_so:
                raise PolicyError(f"route {route.route} answers privately ({route.privacy.mechanism}), and {what}")
