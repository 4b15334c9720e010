"""Fuzzes the gate's own JSON: `python -m tests.gate.hostile.fuzz.fuzz_decode -max_total_time=60`."""

from pathlib import Path

from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    from palladion.gate.problems import Problem
    from palladion.gate.protocols.predict import Predict
    from tests.gate.hostile.fuzz.checks import PORTS, ROWS_MAX, check_asked, check_refusal

CORPUS = Path(__file__).parent / "corpus" / "decode"
PROTOCOL = Predict("/p", PORTS, rows_max=ROWS_MAX)


def one_input(data: bytes) -> None:
    """A body is a question, or is refused."""
    try:
        asked = PROTOCOL.decode(data, {})
    except Problem as problem:
        check_refusal(problem)
        return
    check_asked(asked)


if __name__ == "__main__":
    fuzz(one_input, str(CORPUS))
