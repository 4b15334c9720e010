"""Decoys are found by whoever asks them, also rounded, and by nobody else; what is kept of them shows none of them."""

import time
import unicodedata
import warnings
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.access import decoys
from palladion.access.decoys import (
    TEXT_CHARACTERS_MAX,
    PlantedRows,
    RowDecoys,
    TextDecoys,
    check_rows,
    open_rows,
    seal_rows,
    text_digests,
)
from palladion.errors import FormatError, TamperError

KEY, OTHER_KEY = b"\7" * 32, b"\x08" * 32
MODEL = "fraud"
# columns of very different units, some of them often 0
SCALES = np.array([50_000.0, 0.01, 1.0, 1.0, 300.0, 1e-6, 7.0, 1e9])


def _planted(generator: np.random.Generator, decoy: str, rows: int = 5, tolerance: float = 1e-3) -> PlantedRows:
    drawn = generator.standard_normal((rows, len(SCALES))) * SCALES
    drawn[1:, 3] *= generator.random(rows - 1) < 0.5
    return PlantedRows(decoy, check_rows(drawn, tolerance), tolerance)


def _many(seed: int, count: int = 300) -> tuple[RowDecoys, list[PlantedRows], np.random.Generator]:
    generator = np.random.default_rng(seed)
    planted = [_planted(generator, f"decoy{number}") for number in range(count)]
    return RowDecoys(KEY, MODEL, planted), planted, generator


def _off_by(planted: PlantedRows, share: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """The rows, each number off by that share of what is allowed, up or down."""
    allowed = np.abs(planted.rows).max(axis=0).astype(np.float64) * planted.tolerance
    up = generator.choice([-1.0, 1.0], planted.rows.shape)
    rows: NDArray[np.float64] = planted.rows.astype(np.float64) + up * allowed * share
    return rows


def test_every_row_of_every_decoy_is_found_up_to_the_tolerance() -> None:
    known, planted, generator = _many(1)
    for item in planted:
        for share in (0.0, 0.5, 0.99):
            for row in _off_by(item, share, generator):
                assert known.touched(row[None, :]) == [item.decoy]


def test_a_number_beyond_the_tolerance_is_another_row() -> None:
    known, planted, generator = _many(2, 50)
    for item in planted:
        for column in range(len(SCALES)):
            row = item.rows[:1].astype(np.float64)
            row[0, column] += 1.02 * item.tolerance * np.abs(item.rows[:, column]).max()
            assert known.touched(row) == [], column
    assert known.touched(_off_by(planted[0], 2, generator)) == []


def test_rows_as_wide_as_pictures_are_found_when_they_were_rounded() -> None:
    generator = np.random.default_rng(3)
    pictures = np.where(generator.random((400, 784)) < 0.2, generator.integers(0, 256, (400, 784)) / 255, 0)
    planted = [
        PlantedRows(f"decoy{n}", check_rows(pictures[n * 4 : n * 4 + 4], 1e-3), 1e-3, one_unit=True) for n in range(100)
    ]
    known = RowDecoys(KEY, MODEL, planted)
    for written in (pictures, pictures.astype(np.float16).astype(float), pictures.round(4)):
        found = [known.touched(row[None, :].astype(np.float64)) for row in written]
        assert found == [[f"decoy{n // 4}"] for n in range(400)]
    honest = generator.random((2000, 784))
    assert known.touched(honest) == []


@pytest.mark.slow
def test_a_request_of_many_rows_names_each_decoy_once() -> None:
    known, planted, generator = _many(4)
    honest = generator.standard_normal((40, len(SCALES))) * SCALES
    batch = np.concatenate([honest, planted[7].rows, planted[3].rows[:1], honest])
    assert known.touched(batch) == ["decoy7", "decoy3"]
    assert known.touched(honest) == []


@pytest.mark.parametrize("value", [np.nan, 1.7e308, -1.7e308, 5e-324, 0.0])
def test_no_number_that_a_client_chooses_breaks_the_search(value: float) -> None:
    known, planted, _ = _many(5, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert known.touched(np.full((3, len(SCALES)), value)) == []
        mixed = planted[0].rows[:1].astype(np.float64)
        mixed[0, 1] = value
        assert known.touched(mixed) == []


@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_not_finite_is_no_decoy() -> None:
    known, planted, _ = _many(5, 20)
    for value in (np.inf, -np.inf):
        mixed = planted[0].rows[:1].astype(np.float64)
        mixed[0, 1] = value
        assert known.touched(np.concatenate([mixed, np.full((2, len(SCALES)), value)])) == []


def test_where_it_looks_is_decided_by_the_key() -> None:
    generator = np.random.default_rng(6)
    planted = [_planted(generator, "decoy")]
    one, other = RowDecoys(KEY, MODEL, planted), RowDecoys(OTHER_KEY, MODEL, planted)
    assert not np.array_equal(np.sign(one._directions), np.sign(other._directions))
    assert np.abs(np.sign(one._directions)).min() == 1
    assert not np.array_equal(one._directions, RowDecoys(KEY, "spam", planted)._directions)


def test_few_honest_queries_lie_in_the_cell_of_a_decoy() -> None:
    known, _, generator = _many(7, 1000)
    honest = generator.standard_normal((5000, len(SCALES))) * SCALES
    near = 0

    def count(*_: object) -> list[str]:
        nonlocal near
        near += 1
        return []

    known._equal = count  # type: ignore[assignment,method-assign]
    known.touched(honest)
    assert near < 250


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (np.ones(4), "a table of numbers"),
        (np.ones((0, 4)), "a table of numbers"),
        (np.array([["a", "b", "c", "d"]]), "a table of numbers"),
        (np.array([[1.0, 2, 3, np.nan]]), "infinite"),
        (np.array([[1.0, 2, 3, 1e39]]), "single precision"),
        (np.array([[1.0, 2, 3, 4], [1, 2, 3, 0]]), "row 2 has fewer than 4"),
    ],
)
def test_rows_that_cannot_be_a_decoy_are_refused(rows: NDArray[np.float64], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        check_rows(rows, 1e-3)


@pytest.mark.parametrize("tolerance", [0, 9e-7, 0.011, float("nan")])
def test_a_tolerance_that_would_take_honest_rows_is_refused(tolerance: float) -> None:
    with pytest.raises(FormatError, match="a tolerance of"):
        check_rows(np.ones((1, 4)), tolerance)


def test_a_row_with_more_than_two_axes_is_laid_out_flat() -> None:
    assert check_rows(np.ones((2, 2, 3)), 1e-3).shape == (2, 6)


def test_decoys_of_different_widths_are_not_mixed() -> None:
    wide, narrow = (PlantedRows("a", np.ones((1, width), np.float32), 1e-3) for width in (4, 5))
    for planted in ([], [wide, narrow]):
        with pytest.raises(ValueError, match="different widths"):
            RowDecoys(KEY, MODEL, planted)


def test_sealed_rows_open_with_the_key_for_the_decoy_and_model_alone() -> None:
    planted = replace(_planted(np.random.default_rng(8), "decoy1"), one_unit=True)
    data = seal_rows(KEY, MODEL, planted)
    opened = open_rows(KEY, MODEL, "decoy1", data)
    assert opened.rows.tolist() == planted.rows.tolist()
    assert (opened.tolerance, opened.one_unit) == (planted.tolerance, True)
    for number in planted.rows.reshape(-1):
        assert number.tobytes() not in data
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    for key, model, decoy, some in (
        (OTHER_KEY, MODEL, "decoy1", data),
        (KEY, "spam", "decoy1", data),
        (KEY, MODEL, "decoy2", data),
        (KEY, MODEL, "decoy1", flipped),
        (KEY, MODEL, "decoy1", data[:20]),
    ):
        with pytest.raises(TamperError, match="was changed, or is of another gate"):
            open_rows(key, model, decoy, some)
    with pytest.raises(FormatError, match="no sealed rows"):
        open_rows(KEY, MODEL, "decoy1", data[:10])
    assert seal_rows(KEY, MODEL, planted) != data


PROMPT = "What did the harbour master write on the 31st of June?"


def _texts(*planted: tuple[str, str]) -> TextDecoys:
    return TextDecoys(KEY, MODEL, [(decoy, text_digests(KEY, MODEL, [text])) for decoy, text in planted])


@pytest.mark.parametrize(
    "asked",
    [
        PROMPT,
        f"  {PROMPT.upper()}\n",
        PROMPT.replace(" ", "\t \n"),
        PROMPT.replace("31st", "31\u02e2\u1d57"),
    ],
)
def test_a_prompt_is_found_however_it_is_written(asked: str) -> None:
    assert _texts(("a", PROMPT), ("b", PROMPT[::-1])).touched(["hello", asked]) == ["a"]


@pytest.mark.parametrize("asked", [PROMPT[:-1], f"Tell me. {PROMPT}", "hello", "", PROMPT + " " * 70_000])
def test_another_prompt_is_not(asked: str) -> None:
    assert _texts(("a", PROMPT)).touched([asked]) == []


def test_what_is_kept_of_a_prompt_means_nothing_without_key_and_model() -> None:
    data = text_digests(KEY, MODEL, [PROMPT])
    assert PROMPT.encode() not in data
    assert TextDecoys(OTHER_KEY, MODEL, [("a", data)]).touched([PROMPT]) == []
    assert TextDecoys(KEY, "spam", [("a", data)]).touched([PROMPT]) == []
    assert TextDecoys(KEY, MODEL, [("a", data)]).touched([PROMPT, PROMPT]) == ["a"]


def test_several_prompts_of_one_decoy_are_each_found() -> None:
    known = TextDecoys(KEY, MODEL, [("a", text_digests(KEY, MODEL, [PROMPT, PROMPT[::-1], PROMPT]))])
    assert known.touched([PROMPT[::-1]]) == ["a"]


@pytest.mark.parametrize("text", ["too short", "x" * (TEXT_CHARACTERS_MAX + 1), "   " * 40])
def test_a_prompt_that_anybody_asks_or_nobody_reads_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="characters, 20 to 16384"):
        text_digests(KEY, MODEL, [text])


# what normalising would take long over, or make long, each as long as is looked at
FOUL_TEXTS = {
    "marks in the wrong order": "a" + "\u0315" * 32_768 + "\u0323" * 32_767,
    "marks that decompose": "\u0f40" + "\u0f73" * 65_535,
    "marks of half width": "\uff76" + "\uff9e" * 65_535,
    "marks before anything": "\u0323\u0315" * 32_768,
    "30 marks a letter": ("a" + "\u0315\u0323" * 15) * 2114,
    "vowels of Hangul": "\u1100" + "\u1161" * 65_535,
    "18 letters each": "\ufdfa" * 65_536,
    "spaces that become marks": "\u00a8" * 65_536,
    "three letters when folded": "\u0390" * 65_536,
    "beyond the first plane": "\U0001d400" * 65_536,
    "more than is looked at": "\ufdfa" * 4_000_000,
}


@pytest.mark.parametrize("defect", FOUL_TEXTS)
def test_no_text_that_a_client_chooses_takes_long(defect: str) -> None:
    known = _texts(("a", PROMPT))
    spent = time.process_time()
    assert known.touched([FOUL_TEXTS[defect]]) == []
    # what is linear takes some 30 ms; with a square in it, seconds
    assert time.process_time() - spent < 0.3


def test_a_text_that_becomes_too_long_is_left_where_it_has() -> None:
    normal = decoys._normal("\ufdfa" * 65_536)
    assert normal is not None
    assert TEXT_CHARACTERS_MAX < len(normal) <= TEXT_CHARACTERS_MAX + 2 * 18 * decoys.PIECE_CHARACTERS


def test_the_normal_form_of_pieces_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeded: texts of letters and marks that are composed, reordered and folded, cut at every length."""
    generator = np.random.default_rng(11)
    letters = ["a", "E", "\u00e9", "\u0315", "\u0323", "\u0301", "\u1112", "\u1161", "\u11ab", "\uac00", "\u09c7"]
    letters += [
        "\u09be",
        "\uff76",
        "\uff9e",
        "\u0f73",
        "\ufdfa",
        " ",
        "\u00a8",
        "\u1e9e",
        "\u3163",
        "\U000110a5\U000110ba",
    ]
    for _ in range(300):
        text = "".join(generator.choice(letters, 60).tolist())
        whole = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        for characters in (1, 2, 7):
            monkeypatch.setattr(decoys, "PIECE_CHARACTERS", characters)
            assert decoys._normal(text) == whole, ascii(text)


@pytest.mark.slow
def test_whatever_joins_the_character_before_it_is_known() -> None:
    """By all of Python's Unicode: of a first and a second that are composed, the second begins no piece."""
    joining = decoys._joining()
    for character in map(chr, (*range(0xD800), *range(0xE000, 0x110000))):
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            assert chr(int(parts[1], 16)) in joining
        if parts or unicodedata.combining(character):
            first = unicodedata.normalize("NFKD", character)[0]
            assert first in joining or not unicodedata.combining(first)
            assert character in joining or first not in joining
    for syllable in ("\uac01", "\uac00", "\ud7a3"):
        assert all(letter in joining for letter in unicodedata.normalize("NFD", syllable)[1:])
    assert not joining & set(map(chr, range(0x300)))


@pytest.mark.parametrize(
    "text", ["\u246e\u246f\u2470\u2471\u2472 \u246e\u246f\u2470\u2471\u2472", "\ufb01nd \ufb03 in \ufb02oor 99"]
)
def test_a_prompt_is_as_long_as_its_normal_form_is(text: str) -> None:
    assert len(text) < 20 <= len(unicodedata.normalize("NFKC", text))
    assert _texts(("a", text)).touched([text]) == ["a"]


@pytest.mark.parametrize("text", [PROMPT + " " * 70_000, PROMPT + "e" + "\u0301" * 31])
def test_a_prompt_that_would_never_be_recognised_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="prompt 2 has more than 30 marks on one letter, or 65536 characters"):
        text_digests(KEY, MODEL, [PROMPT, text])


def test_a_letter_with_thirty_marks_is_still_one() -> None:
    text = PROMPT + "e" + "\u0301" * 30
    assert _texts(("a", text)).touched([text.upper()]) == ["a"]


def test_a_prompt_of_any_size_is_found_in_another_spelling() -> None:
    text = "\u00e9\u00e8 \u1ea5\uac01" * 3000
    spelled = unicodedata.normalize("NFD", text).upper().replace(" ", "  \n")
    assert len(text) < len(spelled) < 65_536
    assert _texts(("a", text)).touched([spelled]) == ["a"]


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="the key has 31 bytes"):
        text_digests(KEY[1:], MODEL, [PROMPT])
    with pytest.raises(ValueError, match="the key has 31 bytes"):
        seal_rows(KEY[1:], MODEL, _planted(np.random.default_rng(9), "a"))


def test_the_constants_promise_what_the_text_says() -> None:
    assert 2 * np.exp(-(decoys.DEVIATIONS**2) / 2) < 3.1e-8
    assert (1 + 2 / decoys.CELL) ** decoys.DIRECTIONS < 5.1
