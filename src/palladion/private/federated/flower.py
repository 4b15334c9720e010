"""Flower carries the messages: a ClientApp around a site, and a way to ask over a ServerApp's grid.

Flower's own strategies, masks and mods are not used: its secure aggregation has masks of 28 bits, and a run in which
every client failed ends as finished. What Flower gives is the road: connections, TLS, who is there, processes.
Needs the extra `fl`, best in an environment of its own.
"""

import importlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from palladion.errors import MissingExtraError
from palladion.private.federated.aggregation import Ask
from palladion.private.federated.site import Site

RECORD, BODY, STATE = "palladion", "body", "palladion-state"
TIMEOUT_S = 600.0  # for the answers to one question, training included
LATE_S = 60.0  # for those who are slower than enough others
POLL_S_MIN, POLL_S_MAX = 0.005, 0.25  # how often the grid is looked at: less often the longer it takes


def client_app(site_of: Callable[[Any], Site]) -> Any:
    """A Flower ClientApp that answers as the site which `site_of` makes of Flower's context.

    Secrets of the round that is on are kept in the context, which Flower holds in the memory of the site's SuperNode.
    Every run has a context of its own, and whoever runs the SuperLink starts runs: a site needs a journal, or it could
    be made to train its rounds again in another run. One without answers nothing. Raises MissingExtraError.
    """
    flower = _flower()
    app = importlib.import_module("flwr.clientapp").ClientApp()

    @app.train()  # type: ignore[untyped-decorator]
    def answer(message: Any, context: Any) -> Any:
        site = site_of(context)
        if not site.remembers:
            raise ValueError("a site over Flower needs a journal of its rounds: Site(…, journal=PATH)")
        kept = context.state[STATE][BODY] if STATE in context.state else b""
        reply, state = site.answer(message.content[RECORD][BODY], kept)
        context.state[STATE] = flower.ConfigRecord({BODY: state})
        content = flower.RecordDict({RECORD: flower.ConfigRecord({BODY: reply})})
        return flower.Message(content=content, reply_to=message)

    return app


def asker(grid: Any, *, timeout_s: float = TIMEOUT_S, enough: int | None = None, late_s: float = LATE_S) -> Ask:
    """How a server asks over Flower's grid; a node that fails or is late is missing in the answers.

    Once `enough` have answered, as the terms' threshold, the others have `late_s` more: Flower notices only after a
    minute that a node was killed. None waits for all, `timeout_s` at most. Raises MissingExtraError, ValueError.
    """
    flower = _flower()
    if not (0 < timeout_s < math.inf and 0 <= late_s < math.inf):
        raise ValueError(f"timeouts of {timeout_s} and {late_s} seconds were got, positive numbers were expected")

    def ask(bodies: Mapping[str, bytes]) -> dict[str, bytes]:
        sent = [
            flower.Message(
                content=flower.RecordDict({RECORD: flower.ConfigRecord({BODY: body})}),
                dst_node_id=int(node),
                message_type=flower.MessageType.TRAIN,
            )
            for node, body in bodies.items()
        ]
        answered: dict[str, bytes] = {}
        waiting, until = set(grid.push_messages(sent)), time.monotonic() + timeout_s
        pause_s = POLL_S_MIN
        while waiting and time.monotonic() < until:
            # not `send_and_receive`: it looks every three seconds only, and waits for the last
            for reply in grid.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                node = str(reply.metadata.src_node_id)
                body = None if reply.has_error() else reply.content.get(RECORD, {}).get(BODY)
                if node in bodies and isinstance(body, bytes):
                    answered[node] = body
                if enough is not None and len(answered) == enough:
                    until = min(until, time.monotonic() + late_s)
            if waiting:
                time.sleep(pause_s)
                pause_s = min(1.2 * pause_s, POLL_S_MAX)
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
