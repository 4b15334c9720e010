"""Fuzzes ModelInferRequests: `python -m tests.gate.grpc.fuzz.fuzz_request -max_total_time=60`."""

from pathlib import Path

from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    from palladion.gate.grpc.codec import GrpcInference
    from palladion.gate.grpc.head import read_head, read_name
    from palladion.gate.grpc.messages import load_messages
    from palladion.gate.problems import Problem
    from tests.gate.hostile.fuzz.checks import PORTS, ROWS_MAX, check_asked, check_refusal

CORPUS = Path(__file__).parent / "corpus" / "request"
PROTOCOL = GrpcInference("", "m", "1", PORTS, outputs=["y"], rows_max=ROWS_MAX)
REQUEST = load_messages()["ModelInferRequest"]


def one_input(data: bytes) -> None:
    """A message is a question, or is refused; whom it asks is what protobuf reads as well."""
    try:
        read_name(data)
    except Problem as problem:
        check_refusal(problem)
    try:
        named = read_head(data)
        asked = PROTOCOL.decode(data, {})
    except Problem as problem:
        check_refusal(problem)
        return
    check_asked(asked)
    message = REQUEST.FromString(data)
    assert named == (message.model_name, message.model_version)


if __name__ == "__main__":
    fuzz(one_input, str(CORPUS))
