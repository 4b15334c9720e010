"""The fuzz targets of the gate's parsers: what is in the corpus and near it is tried every time, and a short search."""

import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.gate.hostile.fuzz import (
    fuzz_answered,
    fuzz_chat,
    fuzz_credential,
    fuzz_decode,
    fuzz_events,
    fuzz_json_paths,
    fuzz_open_inference,
    fuzz_open_inference_answer,
    fuzz_path,
)
from tests.seal.fuzz.run import Target, replay

ROOT = Path(__file__).parents[4]
CORPUS = Path(__file__).parent / "corpus"
TARGETS: dict[str, Target] = {
    "decode": fuzz_decode.one_input,
    "json_paths": fuzz_json_paths.one_input,
    "open_inference": fuzz_open_inference.one_input,
    "credential": fuzz_credential.one_input,
    "path": fuzz_path.one_input,
    "chat": fuzz_chat.one_input,
    "answered": fuzz_answered.one_input,
    "events": fuzz_events.one_input,
    "open_inference_answer": fuzz_open_inference_answer.one_input,
}
SECONDS = 5
CORPUS_FILES_MAX = 100
CORPUS_FILE_BYTES_MAX = 8 * 1024
TOKENS = [b"[", b"]", b"{", b"}", b",", b'"', b"1e39", b"-", b"null", b"\\u0000", b"\xff", b"\n", b"[*]", b"."]


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_in_the_corpus_shows_a_fault(name: str) -> None:
    assert replay(TARGETS[name], str(CORPUS / name)) >= 6


@pytest.mark.parametrize("name", TARGETS)
def test_changes_of_the_corpus_show_no_fault(name: str) -> None:
    choice = random.Random(7)
    paths = sorted((CORPUS / name).iterdir())
    for _ in range(1000):
        data = bytearray(choice.choice(paths).read_bytes())
        for _ in range(choice.randint(1, 3)):
            place = choice.randrange(len(data) + 1)
            match choice.randrange(3):
                case 0:
                    data[place : place + 1] = choice.randbytes(1)
                case 1:
                    del data[place : place + choice.randint(1, 9)]
                case _:
                    data[place:place] = choice.choice([*TOKENS, choice.randbytes(2)])
        TARGETS[name](bytes(data))


def test_some_of_the_corpus_is_let_through() -> None:
    # a corpus that is refused at the door tests the door alone
    assert fuzz_decode.PROTOCOL.decode((CORPUS / "decode" / "right").read_bytes(), {}).rows == 2
    assert fuzz_json_paths.CLIENTS[b"r"].decode((CORPUS / "json_paths" / "rows").read_bytes()[1:], {}).rows == 2
    assert fuzz_json_paths.CLIENTS[b"c"].decode((CORPUS / "json_paths" / "columns").read_bytes()[1:], {}).rows == 2
    answer = (CORPUS / "json_paths" / "answer").read_bytes()[1:]
    assert len(fuzz_json_paths.UPSTREAMS[b"r"].decode_answer(answer, [], 2)) == 3
    assert fuzz_open_inference.PROTOCOL.decode((CORPUS / "open_inference" / "right").read_bytes()[2:], {}).rows == 2


def test_some_questions_to_language_models_are_let_through_too() -> None:
    for name, kind in (("chat", b"c"), ("completion", b"t"), ("embedding", b"e"), ("response", b"r")):
        data = (CORPUS / "chat" / name).read_bytes()
        assert data[:1] == kind
        assert fuzz_chat.ROUTE.decode(fuzz_chat.PATHS[data[0]], data[1:]).rows >= 1


def test_some_answers_of_upstreams_are_let_through_too() -> None:
    for name in ("chat", "text", "embedding", "response"):
        data = (CORPUS / "answered" / name).read_bytes()
        work = fuzz_answered._work(data[0], fuzz_answered.PATHS[data[0]])
        assert work.read(data[1:])(fuzz_answered.GIVEN)[0]
    for name in ("stream", "stream-text", "stream-response"):
        data = (CORPUS / "answered" / name).read_bytes()
        mode = data[:1].lower()[0]
        said = fuzz_answered._streamed(fuzz_answered._work(mode, fuzz_answered.PATHS[mode]), data[1:])
        assert len(said) >= 2
    answer = (CORPUS / "open_inference_answer" / "right").read_bytes()[1:]
    assert len(fuzz_open_inference_answer.CODEC.decode_answer(answer, [], 2)) == 3
    assert len(fuzz_events._read([(CORPUS / "events" / "several").read_bytes()[1:]]) or ()) == 3


def test_the_corpus_stays_small() -> None:
    for name in TARGETS:
        sizes = [path.stat().st_size for path in (CORPUS / name).iterdir()]
        assert len(sizes) <= CORPUS_FILES_MAX
        assert max(sizes) <= CORPUS_FILE_BYTES_MAX


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_a_short_search_finds_no_fault(name: str) -> None:
    if find_spec("atheris") is None:
        pytest.skip("atheris, a part of the thorough extra, is not installed")
    options = [f"-max_total_time={SECONDS}", "-seed=1", "-print_final_stats=1"]
    target = [sys.executable, "-m", f"tests.gate.hostile.fuzz.fuzz_{name}", *options]
    # by way of a shell: a process begins with the peak memory of the one that started it
    command = ["sh", "-c", '"$@"; exit $?', "sh", *target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "INITED cov:" in done.stderr
