"""Which settings of a route say where its answers come from, so that another value of one is another upstream."""

from palladion.policy import RoutePolicy

# Beside those whose names begin with `upstream`: what its connections wait for, and what is asked and read there.
SETTINGS = frozenset({"answer_seconds", "engine", "fixed", "inputs", "label_output", "outputs", "scores_output"})


def is_of_source(setting: str) -> bool:
    """Whether a setting of a route at an upstream, by its key, says where and how that is asked."""
    return setting.startswith("upstream") or setting in SETTINGS


def comes_from_elsewhere(before: RoutePolicy, after: RoutePolicy) -> bool:
    """Whether a route at an upstream has to ask another one, or in another way, than before."""
    if not before.upstream or not after.upstream:
        return before.upstream != after.upstream
    return any(getattr(before, key) != getattr(after, key) for key in after.__struct_fields__ if is_of_source(key))
