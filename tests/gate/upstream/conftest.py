"""Both event loops: the gate runs on uvloop, and asyncio's own is the one whose behaviour is documented."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from .scripted import Runner

SECONDS_MAX = 20  # what hangs is a fault, and is told where it hangs


@pytest.fixture(
    params=[
        pytest.param(asyncio.new_event_loop, id="asyncio", marks=pytest.mark.slow),
        pytest.param(uvloop.new_event_loop, id="uvloop"),
    ]
)
def run(request: pytest.FixtureRequest) -> Runner:
    """Run a coroutine to its end; what a callback of the loop lets slip fails the test."""
    make: Callable[[], asyncio.AbstractEventLoop] = request.param

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        slips: list[Any] = []
        with asyncio.Runner(loop_factory=make) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: slips.append(context))
            runner.run(asyncio.wait_for(coroutine, SECONDS_MAX))
        assert slips == []

    return run
