"""Which routes a policy has, and that nothing else answers on their paths: checked before anything is opened."""

from palladion.errors import PolicyError
from palladion.gate.app import HEALTH_PATHS
from palladion.lifecycle.installation import Installation

ROUTES_MAX = 100  # all of them stand in one record, which has at most 64 KiB


def check_routes(installation: Installation) -> None:
    """Raise PolicyError unless there are routes, with paths of their own that nothing else answers on."""
    policy = installation.paths.policy
    routes = [*installation.policy.route, *(item.route for item in installation.policy.encrypted)]
    paths = [route.route for route in routes]
    if not paths:
        raise PolicyError(
            f"{policy} has no [[route]]: nothing would be served",
            'add two lines, for example:  [[route]]  and  model = "fraud"',
        )
    if len(paths) > ROUTES_MAX:
        raise PolicyError(f"{policy} has {len(paths)} routes, at most {ROUTES_MAX} are allowed")
    taken = sorted({path for path in paths if paths.count(path) > 1} | HEALTH_PATHS.intersection(paths))
    if taken:
        raise PolicyError(f"{policy}: the path {taken[0]} is taken twice", "give the route a path of its own")
