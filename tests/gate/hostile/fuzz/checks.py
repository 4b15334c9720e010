"""What holds for every question that a parser lets through, and what a refusal may say."""

import numpy as np

from palladion.gate.problems import Problem
from palladion.gate.protocols.protocol import Asked
from palladion.model.run import Port

ROWS_MAX = 4
PORTS = [Port("x", "float32", (None, 2)), Port("n", "int8", (None,)), Port("t", "string", (None, 1))]
REFUSALS = {"bad-request", "bad-input", "unsupported-media-type", "too-large"}
BODY_BYTES_MAX = 4096  # of a problem


def check_asked(asked: Asked) -> None:
    """Exactly the arrays that the model takes, each finite, of its type and with as many rows."""
    assert 1 <= asked.rows <= ROWS_MAX
    assert list(asked.feeds) == [port.name for port in PORTS]
    for port in PORTS:
        array = asked.feeds[port.name]
        assert array.shape == (asked.rows, *port.shape[1:])
        if port.dtype == "string":
            assert all(isinstance(text, str) for text in array.reshape(-1))
            "".join(array.reshape(-1).tolist()).encode()  # no half of a surrogate
        else:
            assert array.dtype == np.dtype(port.dtype)
            assert np.isfinite(array).all()


def check_refusal(problem: Problem) -> None:
    """It is the client's fault, and does not repeat all that was sent."""
    assert problem.kind in REFUSALS
    assert len(problem.body()) <= BODY_BYTES_MAX
