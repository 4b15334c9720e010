"""Fuzzes the parser of answers: `python -m tests.gate.upstream.fuzz.fuzz_answer -max_total_time=60`.

The first byte of an input says what the rest answers and how it is cut; how it is cut must not matter.
"""

from pathlib import Path

from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    from palladion.gate.upstream.answer import Answer, AnswerParser
    from tests.gate.upstream.reading import BODY_BYTES_MAX, LIMITS, Reading, bytewise, read

CORPUS = Path(__file__).parent / "corpus" / "answer"


def one_input(data: bytes) -> None:
    """Read an answer in whole, byte by byte and in pieces: all must agree, and what is taken must be sound."""
    mode, rest = data[:1], data[1:]
    head_only, secure = mode in b"hH", mode in b"sS"
    step = 1 + mode[0] if mode else 7
    pieces = [rest[begin : begin + step] for begin in range(0, len(rest), step)]
    cuts = [[rest] if rest else [], bytewise(rest), pieces]
    whole, bytes_, stepped = (
        read(parts, head_only=head_only, parser=AnswerParser("it", LIMITS, secure=secure)) for parts in cuts
    )
    _check(whole)
    if len(rest) > LIMITS.head_bytes_max:
        return  # what is too large for a head depends on where it is cut
    after = rest[bytes_.read :].strip(b"\r\n")
    if isinstance(bytes_.outcome, Answer) and bytes_.read < len(rest):
        # what follows in the same read is seen, except behind a head alone, whose connection is not used again
        assert whole.outcome == "broken" if after and not head_only else whole.outcome in ("broken", bytes_.outcome)
        assert stepped.outcome in ("broken", bytes_.outcome)
    else:
        assert whole.outcome == bytes_.outcome == stepped.outcome
        assert whole.reusable == bytes_.reusable == stepped.reusable


def _check(reading: Reading) -> None:
    answer = reading.outcome
    if not isinstance(answer, Answer):
        assert answer in ("broken", "too-large")
        return
    assert 200 <= answer.status <= 599
    assert len(answer.body) <= BODY_BYTES_MAX
    for name, value in answer.headers:
        assert name
        assert name == name.lower()
        assert not set(name) & set(b"\r\n\0 :")
        assert not set(value) & set(b"\r\n\0")
        assert name != b"content-encoding" or value.lower() == b"identity"
    framing = [name for name, _ in answer.headers if name in {b"content-length", b"transfer-encoding"}]
    assert len(framing) <= 1


if __name__ == "__main__":
    fuzz(one_input, str(CORPUS))
