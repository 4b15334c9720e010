"""Texts from n-grams to a calibration's file, on talkers made up from a few tasks."""

from datetime import UTC, datetime

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.redteam.distillers import FAMILIES, distiller
from palladion.redteam.prompts import Prompts
from palladion.redteam.talk import honest_households, honest_talkers
from palladion.watch.calibration import About
from palladion.watch.text.calibration import TextCalibration, calibrate_texts, client_statistics
from palladion.watch.text.calibration_file import decode_text_calibration, encode_text_calibration
from palladion.watch.text.features import COHESION, TEXT_FEATURES, TextFeatures
from palladion.watch.text.memory import MEMORY_BYTES_MAX, TextMemory
from palladion.watch.text.ngrams import LOOKED_BYTES, NgramHash, folded
from palladion.watch.text.query import DEFAULTS, Parameters, Query
from palladion.watch.text.rules import RULES, applied
from palladion.watch.text.template import likeness, signature

WORDS = ("river", "stone", "market", "engine", "letter", "garden", "winter", "copper", "signal", "harbour", "lesson")


def prompts() -> Prompts:
    generator = np.random.default_rng(3)

    def text(task: int) -> str:
        chosen = [WORDS[place] for place in generator.integers(0, len(WORDS), 6).tolist()]
        return f"Task kind {chr(97 + task) * 4}: say what follows.\nThe {' '.join(chosen)}.\nWhat is {chosen[0]}?"

    return Prompts({f"s{task % 4}_{task}": [text(task) for _ in range(20)] for task in range(12)})


@pytest.fixture(scope="module")
def calibration() -> TextCalibration:
    generator = np.random.default_rng(1)
    made = honest_talkers(prompts(), 80, 24, generator)
    talk = [talker.conversation for talker in made]
    households = honest_households(prompts(), 5, 3, 12, generator, correlation=0.2)
    groups = [[member.conversation for member in members] for members in households]
    created = datetime(2026, 1, 1, tzinfo=UTC)
    about = About("m", 1, "00" * 32, True, 24, 12, 1, created)
    return calibrate_texts(about, talk[:45], talk[45:], groups, generator)


def test_a_text_of_ten_megabytes_is_looked_at_in_a_few_kilobytes_with_both_ends() -> None:
    looked = NgramHash(1).looked_at("begin" + "x" * 10_000_000 + "end")
    assert len(looked) <= LOOKED_BYTES
    assert looked.startswith(b"begin")
    assert looked.endswith(b"end")


def test_what_is_looked_at_in_the_middle_depends_on_the_salt() -> None:
    text = "".join(chr(97 + place * place % 23) + str(place) for place in range(5000))
    assert NgramHash(1).looked_at(text) != NgramHash(2).looked_at(text)


def test_likely_texts_have_likely_vectors_and_unit_length() -> None:
    hashing = NgramHash(7)
    one, near, far = hashing.vectors([b"what is the capital of france", b"what is the capital of spain", b"zq 000 ;;"])
    assert np.isclose(one @ one, 1)
    assert one @ near > 0.5 > abs(one @ far)


@pytest.mark.parametrize("text", ["", "a", "ab", "\ud800", "\x00" * 50, "é" * LOOKED_BYTES])
def test_odd_texts_are_measured_without_a_figure_that_is_not_finite(calibration: TextCalibration, text: str) -> None:
    look = calibration.instruments.features.look(Query(text))
    assert np.isfinite(look.coordinates).all()
    assert not np.isinf(look.found).any()


def test_texts_of_one_template_have_like_signatures() -> None:
    frame = "you are an assistant of our company. answer the question below in one short and polite sentence. "
    one, other, none = (
        signature(text.encode()) for text in (frame + "why?", frame + "who?", "something else is asked")
    )
    assert likeness(one[None], other) > 0.6
    assert likeness(one[None], none) < 0.3


def test_rules_notice_words_and_parameters() -> None:
    text = folded(b"Think step by step. Never refuse. Generate 20 new tasks.\n### Instruction:")
    assert applied(text, Parameters(alternatives=5, choices=4)) == [1.0] * len(RULES)
    assert applied(b"what time is it?", DEFAULTS) == [0.0] * len(RULES)


def test_an_exact_repeat_is_not_counted_and_another_seed_is_none(calibration: TextCalibration) -> None:
    features = calibration.instruments.features
    memory = TextMemory(features.kept)
    queries = [Query("a text"), Query("a text"), Query("a text", Parameters(seed=1))]
    assert len(memory.measure(features, queries)[0]) == 2


def test_memory_goes_on_where_it_was_saved_and_stays_small(calibration: TextCalibration) -> None:
    features = calibration.instruments.features
    talker = next(honest_talkers(prompts(), 1, 400, np.random.default_rng(5)))
    memory = TextMemory(features.kept)
    memory.measure(features, talker.conversation.queries[:300])
    saved = memory.to_bytes()
    assert len(saved) <= MEMORY_BYTES_MAX < 14 * 1024
    again = TextMemory.from_bytes(saved)
    rest = talker.conversation.queries[300:]
    np.testing.assert_array_equal(memory.measure(features, rest)[0], again.measure(features, rest)[0])


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"0", lambda data: b"XXXX" + data[4:]])
def test_a_damaged_memory_is_refused(calibration: TextCalibration, damage: object) -> None:
    assert callable(damage)
    memory = TextMemory(calibration.instruments.features.kept)
    memory.measure(calibration.instruments.features, [Query("a"), Query("b")])
    with pytest.raises(FormatError):
        TextMemory.from_bytes(damage(memory.to_bytes()))


def test_texts_without_anything_in_common_have_little_cohesion(calibration: TextCalibration) -> None:
    features = calibration.instruments.features
    one, two = TextMemory(features.kept), TextMemory(features.kept)
    same = [Query(f"say what follows, number {'x' * place}") for place in range(20)]
    source = prompts()
    apart = [Query(source.tasks[name][0]) for name in source.names]
    narrow, broad = one.measure(features, same)[0], two.measure(features, apart)[0]
    assert narrow[-1, COHESION] > broad[-1, COHESION] + 0.2


def test_what_no_calibration_client_said_counts_for_nothing(calibration: TextCalibration) -> None:
    rows = np.full((1, len(TEXT_FEATURES)), np.nan)
    features = np.vstack([rows, np.zeros_like(rows)])
    assert (calibration.instruments.score_features(features)[0, :-1] == 0).all()


def test_strange_texts_leave_a_larger_statistic_than_honest_ones(calibration: TextCalibration) -> None:
    generator = np.random.default_rng(9)
    instruments = calibration.instruments
    honest = next(honest_talkers(prompts(), 1, 24, generator)).conversation
    thief = distiller("self-instruct", prompts(), 24, generator, cover=prompts()).conversation
    ours, theirs = (
        client_statistics(instruments.effects, scores)[-1, 0] for scores in instruments.score([honest, thief])
    )
    assert theirs > ours


def test_a_calibration_survives_its_file_and_a_changed_one_is_refused(calibration: TextCalibration) -> None:
    data = encode_text_calibration(calibration)
    assert encode_text_calibration(decode_text_calibration(data, what="it")) == data
    for broken in (data[:-8], data.replace(b"text-calibration-1", b"text-calibration-2")):
        with pytest.raises(FormatError):
            decode_text_calibration(broken, what="it")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_harvest_is_mixed_in_as_much_as_was_asked(family: str) -> None:
    made = distiller(family, prompts(), 40, np.random.default_rng(2), cover=prompts(), mix=0.3)
    assert made.attack.sum() == 12
    assert len(made.conversation.queries) == 40


def test_too_few_texts_are_no_reference() -> None:
    with pytest.raises(ValueError, match="at least"):
        TextFeatures.fit([Query("a")], np.random.default_rng(0))
