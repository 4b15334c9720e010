"""Flower carries the messages: a ClientApp around a site, and a way to ask over a ServerApp's grid.

Flower's own strategies, masks and mods are not used: its secure aggregation has masks of 28 bits, and a run in which
every client failed ends as finished. What Flower gives is the road: connections, TLS, who is there, processes.
Needs the extra `fl`, best in an environment of its own.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

from palladion.errors import MissingExtraError
from palladion.private.federated.aggregation import Ask
from palladion.private.federated.site import Site

RECORD, BODY, STATE = "palladion", "body", "palladion-state"
TIMEOUT_S = 600.0  # for the answers to one question, training included


def client_app(site_of: Callable[[Any], Site]) -> Any:
    """A Flower ClientApp that answers as the site which `site_of` makes of Flower's context.

    Secrets of the round that is on are kept in the context, which Flower holds in the memory of the site's SuperNode.
    Raises MissingExtraError.
    """
    flower = _flower()
    app = importlib.import_module("flwr.clientapp").ClientApp()

    @app.train()  # type: ignore[untyped-decorator]
    def answer(message: Any, context: Any) -> Any:
        kept = context.state[STATE][BODY] if STATE in context.state else b""
        reply, state = site_of(context).answer(message.content[RECORD][BODY], kept)
        context.state[STATE] = flower.ConfigRecord({BODY: state})
        content = flower.RecordDict({RECORD: flower.ConfigRecord({BODY: reply})})
        return flower.Message(content=content, reply_to=message)

    return app


def asker(grid: Any, *, timeout_s: float = TIMEOUT_S) -> Ask:
    """How a server asks over Flower's grid; a node that fails or is late is missing in the answers.

    Raises MissingExtraError, ValueError for a timeout that is none.
    """
    flower = _flower()
    if not 0 < timeout_s < math.inf:
        raise ValueError(f"a timeout of {timeout_s} seconds was got, a positive number was expected")

    def ask(bodies: Mapping[str, bytes]) -> dict[str, bytes]:
        sent = [
            flower.Message(
                content=flower.RecordDict({RECORD: flower.ConfigRecord({BODY: body})}),
                dst_node_id=int(node),
                message_type=flower.MessageType.TRAIN,
            )
            for node, body in bodies.items()
        ]
        answered = {}
        for reply in grid.send_and_receive(sent, timeout=timeout_s):
            node = str(reply.metadata.src_node_id)
            body = None if reply.has_error() else reply.content.get(RECORD, {}).get(BODY)
            if node in bodies and isinstance(body, bytes):
                answered[node] = body
        return answered

    return ask


def nodes_of(grid: Any) -> Callable[[], list[str]]:
    """Who is connected to Flower's grid now."""
    return lambda: [str(node) for node in grid.get_node_ids()]


def _flower() -> Any:
    try:
        return importlib.import_module("flwr.app")
    except ImportError:
        raise MissingExtraError(
            "federated learning over Flower needs flwr, best in an environment of its own",
            "pip install 'palladion[fl]'",
        ) from None
