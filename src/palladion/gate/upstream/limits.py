"""What a model server may cost the gate: connections, time and bytes, each with a default and its reason."""

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class UpstreamLimits:
    """Limits for one server. Raises ValueError for one that is not above zero.

    None bounds a whole exchange: a caller that has a deadline cancels the request, which closes the connection.
    """

    connections_max: int = 64  # engines batch some dozens of requests; more would wait in there, unseen by us
    waiting_max: int = 256  # requests for a free connection: four rounds, and what is beyond is better refused early
    waiting_seconds: float = 10.0  # for a free connection; a client soon asks again anyway
    connect_seconds: float = 2.0  # name, TCP and TLS; servers are near, and one lost packet costs one second
    head_seconds: float = 120.0  # until the answer's head is there: an engine writes a whole text before it sends one
    idle_seconds: float = 30.0  # between bytes of a body; an engine under load pauses between tokens for seconds
    keep_alive_seconds: float = 4.0  # of rest; uvicorn, which most engines run on, closes after 5
    head_bytes_max: int = 32 * 1024  # interim answers included; engines send under 1 KiB
    body_bytes_max: int = 16 * 1024**2  # held in memory: 1,000 rows of 1,000 outputs as JSON, or any text
    stream_bytes_max: int = 256 * 1024**2  # passed on piece by piece, some 300 bytes for each token

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} has to be above zero")
