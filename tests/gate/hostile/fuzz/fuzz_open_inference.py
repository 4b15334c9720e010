"""Fuzzes open-inference requests: `python -m tests.gate.hostile.fuzz.fuzz_open_inference -max_total_time=60`.

The first two bytes of an input are the length of its JSON, as the header says it; 0 stands for no header.
"""

from pathlib import Path

from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    from palladion.gate.problems import Problem
    from palladion.gate.protocols.open_inference import OpenInference
    from palladion.gate.protocols.tensors import HEADER_LENGTH
    from tests.gate.hostile.fuzz.checks import PORTS, ROWS_MAX, check_asked, check_refusal

CORPUS = Path(__file__).parent / "corpus" / "open_inference"
PROTOCOL = OpenInference("", "m", "1", PORTS, outputs=["y"], rows_max=ROWS_MAX)


def one_input(data: bytes) -> None:
    """A body is a question, or is refused."""
    length = int.from_bytes(data[:2], "big")
    headers = {HEADER_LENGTH: str(length).encode()} if length else {}
    try:
        asked = PROTOCOL.decode(data[2:], headers)
    except Problem as problem:
        check_refusal(problem)
        return
    check_asked(asked)


if __name__ == "__main__":
    fuzz(one_input, str(CORPUS))
