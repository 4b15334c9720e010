"""A calibration's file: the same bytes for the same calibration, and refused where anything does not fit."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.watch.conformal import Conformal
from palladion.watch.drift import Reference
from palladion.watch.text.calibration import TextCalibration, TextThresholds
from palladion.watch.text.calibration_file import (
    CALIBRATION_BYTES_MAX,
    decode_text_calibration,
    encode_text_calibration,
)
from palladion.watch.text.encoder import NotOpened, SentenceEncoder
from palladion.watch.text.panels import Leaning
from tests.watch.text import talk
from tests.watch.text.encoders import encoder, network, tokenizer


def encoded() -> bytes:
    return encode_text_calibration(talk.calibration())


def test_a_calibration_survives_its_file() -> None:
    made, again = talk.calibration(), decode_text_calibration(encoded(), what="it")

    assert encode_text_calibration(again) == encoded()
    assert again.about == made.about
    (one,), (other,) = (each.instruments.score(talk.conversations(1, 24, 3)) for each in (made, again))
    np.testing.assert_array_equal(one, other)
    for suprema in ((0.0, 0.0), (9.0, -9.0), (-9.0, 9.0)):
        assert again.p_value(suprema) == made.p_value(suprema)
    assert set(again.groups) == set(made.groups)


@pytest.mark.slow
def test_what_drift_is_told_by_survives_its_file_and_older_files_have_none() -> None:
    made = talk.long_enough()
    again = decode_text_calibration(encode_text_calibration(made), what="it")

    assert made.drift is not None
    assert again.drift is not None
    assert again.drift.digest == made.drift.digest
    assert decode_text_calibration(encode_text_calibration(replace(made, drift=None)), what="it").drift is None
    assert b"drift" not in encoded()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda known: Reference(known.statistics[::-1].copy(), known.scores), "too few clients for a drift test"),
        (lambda known: Reference(known.statistics, known.scores[:, ::-1].copy()), "too few clients for a drift test"),
        (lambda known: Reference(known.statistics[:9], known.scores[:, :9].copy()), "too few clients for a drift test"),
        (lambda known: Reference(known.statistics, known.scores[1:].copy()), "does not fit"),
        (lambda known: Reference(known.statistics[:-1], known.scores), "does not fit"),
    ],
)
def test_what_no_drift_is_told_by_is_refused(change: Callable[[Reference], Reference], message: str) -> None:
    made = talk.long_enough()
    assert made.drift is not None
    with pytest.raises(FormatError, match=message):
        decode_text_calibration(encode_text_calibration(replace(made, drift=change(made.drift))), what="that file")


def test_what_came_later_is_written_where_there_is_something_to_say() -> None:
    made = talk.calibration()
    of_real = replace(made, about=replace(made.about, fitted_recorded=9))

    assert b"fitted_recorded" not in encoded()
    assert decode_text_calibration(encode_text_calibration(of_real), what="it").about.fitted_recorded == 9


@pytest.mark.slow
def test_a_calibration_with_an_encoder_names_it_and_is_opened_with_no_other() -> None:
    made = talk.encoded()
    data = encode_text_calibration(made)

    again = decode_text_calibration(data, what="it")

    assert again.encoder == NotOpened(encoder().digests, encoder().width)
    assert encode_text_calibration(again) == data
    (one,), (other,) = (
        each.instruments.score(talk.conversations(1, 24, 3)) for each in (made, again.opened(encoder()))
    )
    np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="is not opened"):
        again.instruments.score(talk.conversations(1, 24, 3))
    for calibration in (again, talk.calibration()):
        with pytest.raises(ValueError, match="and with no other"):
            calibration.opened(SentenceEncoder(network(), tokenizer(version="2")))
    assert b'"encoder' not in encoded()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"tokenizer', b'"tokeniser', "by which encoder"),
        (encoder().digests.tokenizer.encode(), encoder().digests.tokenizer.upper().encode(), "by which encoder"),
        (b'\\"encoder\\":{', b'\\"encodes\\":{', "which does not fit"),
    ],
    ids=["name", "digest", "key"],
)
def test_an_encoder_that_is_not_named_as_one_is_refused(old: bytes, new: bytes, message: str) -> None:
    data = encode_text_calibration(talk.encoded())
    assert old in data
    with pytest.raises(FormatError, match=message):
        decode_text_calibration(data.replace(old, new), what="that file")


def test_vectors_that_no_encoder_gives_are_refused() -> None:
    made = talk.calibration()
    named = replace(made.instruments.features, encoder=NotOpened(encoder().digests, 0))
    of_none = replace(made, instruments=replace(made.instruments, features=named))

    with pytest.raises(FormatError, match="vectors of 1024 numbers, which no encoder gives"):
        decode_text_calibration(encode_text_calibration(of_none), what="that file")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-8],
        lambda data: data + b"\0" * 8,
        lambda data: data.replace(b"text-calibration-1", b"text-calibration-9"),
        lambda data: data.replace(b"capitals", b"capitalz"),
        lambda data: data.replace(b"2026-01-01", b"2026-13-01"),
        lambda data: data.replace(b"leaning.width", b"leaning.wydth"),
        lambda data: b"",
        lambda data: b"0" * (CALIBRATION_BYTES_MAX + 1),
    ],
    ids=["short", "long", "format", "features", "time", "name", "empty", "huge"],
)
def test_a_damaged_file_is_refused_by_name(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(FormatError, match="that file"):
        decode_text_calibration(damage(encoded()), what="that file")


def changed(**parts: Any) -> TextCalibration:
    made = talk.calibration()
    return replace(made, instruments=replace(made.instruments, **parts))


def thresholds(values: list[float]) -> TextThresholds:
    return TextThresholds((Conformal(np.array(values)),) * 2)


def _cases() -> dict[str, tuple[TextCalibration, str]]:
    made = talk.calibration()
    parts = made.instruments
    whole, features = parts.effects.whole, parts.features
    leaning = parts.effects.leaning
    return {
        "clients": (replace(made, clients=thresholds([1.0, 2.0])), "claims 35 clients, and holds 2"),
        "order": (replace(made, clients=thresholds([2.0, 1.0] * 17 + [0.0])), "does not ascend"),
        "groups": (replace(made, groups={2: thresholds([2.0, 1.0])}), "does not ascend"),
        "nan": (changed(features=replace(features, centre=features.centre * np.nan)), "not finite"),
        "salt": (changed(features=replace(features, salt=np.array([0.5]))), "salt"),
        "deviations": (changed(features=replace(features, deviations=-features.deviations)), "not positive"),
        "quantiles": (changed(scores=replace(parts.scores, quantiles=-parts.scores.quantiles)), "do not ascend"),
        "variance": (
            changed(effects=replace(parts.effects, whole=replace(whole, between=-1 - whole.between))),
            "variance below zero",
        ),
        "means": (
            changed(effects=replace(parts.effects, leaning=Leaning(leaning.centre[:-1], leaning.width))),
            "means without deviations",
        ),
        "horizon": (replace(made, about=replace(made.about, horizon=0)), "horizon"),
    }


@pytest.mark.parametrize(
    "case", ["clients", "order", "groups", "nan", "salt", "deviations", "quantiles", "variance", "means", "horizon"]
)
def test_what_does_not_fit_together_is_refused(case: str) -> None:
    calibration, message = _cases()[case]
    with pytest.raises(FormatError, match=message):
        decode_text_calibration(encode_text_calibration(calibration), what="that file")
