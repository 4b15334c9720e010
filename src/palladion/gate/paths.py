"""Which endpoint answers on which path, for everything that is served at one time."""

from collections.abc import Callable, Mapping
from functools import partial

from palladion.errors import PolicyError
from palladion.gate.endpoint import Endpoint
from palladion.gate.problems import Problem
from palladion.gate.protocols.protocol import ErrorForm
from palladion.gate.readiness import ReadyPage, ServerPage, Waiting, WaitingPage
from palladion.gate.served import Served
from palladion.gate.stages import Stages

# Makes what answers questions on a path of a served route, a path of it, as the action says that stands there.
Asking = Callable[[Served, str, str], Endpoint]

ROOTS = ("/v1", "/v2")  # where the paths begin of openai and of open-inference, after a prefix of the policy


class Paths:
    """The endpoints by path. Adding raises PolicyError where two answer on one, unless that is about the server."""

    def __init__(self, stages: Stages, others: Mapping[str, Endpoint]) -> None:
        self._stages = stages
        self.endpoints: dict[str, Endpoint] = dict(others)
        self._errors: dict[str, ErrorForm] = {
            path: endpoint for path, endpoint in others.items() if isinstance(endpoint, ErrorForm)
        }
        # for what has no endpoint: where a protocol's paths begin → its words
        self._below: dict[str, ErrorForm] = {}
        for path, errors in self._errors.items():
            self._note_root(path, errors)

    def add_served(self, item: Served, asking: Asking) -> None:
        """The paths of a route whose model can be asked."""
        page = ReadyPage(self._stages, item.route, lambda: item.source.ready)
        errors = item.protocol if isinstance(item.protocol, ErrorForm) else None
        for path, action in item.protocol.paths.items():
            self._add(path, action, page, partial(asking, item, path, action), errors)

    def add_waiting(self, item: Waiting) -> None:
        """The paths of a route whose upstream was not reached yet."""
        page = ReadyPage(self._stages, item.route, lambda: False)
        for path, action in item.paths.items():
            self._add(path, action, page, partial(WaitingPage, self._stages, item.route, action), item.errors)

    def error_members(self, path: str, problem: Problem) -> Mapping[str, object]:
        """What a problem on a path is told in besides."""
        form = self._errors.get(path)
        if form is None and path not in self.endpoints:
            # a model that does not exist, or a part of the protocol that is closed: its clients ask for these as well
            roots = [root for root in self._below if f"{path}/".startswith(f"{root}/")]
            form = self._below[max(roots, key=len)] if roots else None
        return {} if form is None else form.error_members(problem)

    def _add(
        self, path: str, action: str, page: ReadyPage, asking: Callable[[], Endpoint], errors: ErrorForm | None
    ) -> None:
        known = self.endpoints.get(path)
        if action == "server":
            # one page for all routes that have it, which says of each client's own models how they are
            shared = ServerPage(self._stages) if known is None else known
            if isinstance(shared, ServerPage):
                shared.models.append(page)
                self.endpoints[path] = shared
                known = None
        else:
            self.endpoints.setdefault(path, page if action == "ready" else asking())
        if known is not None:
            raise PolicyError(f"the path {path} is taken twice", "give one of the routes a path of its own")
        if errors is not None:
            self._errors[path] = errors
            self._note_root(path, errors)

    def _note_root(self, path: str, errors: ErrorForm) -> None:
        # the last one: what goes before may look like one as well
        end = max(f"{path}/".rfind(f"{root}/") + len(root) for root in ROOTS)
        if path[:end].endswith(ROOTS):
            self._below.setdefault(path[:end], errors)
