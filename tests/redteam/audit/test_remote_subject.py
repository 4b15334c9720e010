"""A service as a subject: rows without the model's file, one door, and the digest of how it is asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.lifecycle.probe import Api
from palladion.redteam.audit.remote_subject import DOOR, digest_of, read_remote_rows, remote_subject
from tests.redteam.audit.services import LABELS, ROWS, URL, Service, labels, probabilities, scores


def test_it_has_one_door_that_says_what_it_answers(tmp_path: Path) -> None:
    with Service(labels).remote(tmp_path) as remote:
        found = remote_subject(remote, ROWS, LABELS)
        assert [(door.name, door.answers) for door in found.doors] == [(DOOR, "labels")]
        assert (found.name, found.deployed, found.classes) == (str(URL), DOOR, 2)
        assert found.service is remote
        assert (found.door(DOOR).ask(ROWS[:9]) == np.eye(2)[LABELS[:9]]).all()


def test_members_come_of_rows_of_training(tmp_path: Path) -> None:
    with Service(scores).remote(tmp_path) as remote:
        found = remote_subject(remote, ROWS, LABELS, (ROWS[:250], LABELS[:250]))
        assert found.training is not None
        assert found.training.member.sum() == 250
        with pytest.raises(FormatError, match="membership needs labels"):
            remote_subject(remote, ROWS, None, (ROWS[:250], LABELS[:250]))


def test_few_rows_measure_nothing(tmp_path: Path) -> None:
    service = Service(scores)
    with service.remote(tmp_path) as remote, pytest.raises(FormatError, match="299 rows are too few"):
        remote_subject(remote, ROWS[:299], None)
    assert not service.asked


def test_the_key_may_change_and_how_it_is_asked_may_not() -> None:
    api = Api(URL, "first")
    assert digest_of(api) == digest_of(replace(api, key="second"))
    assert (
        len({digest_of(item) for item in (api, replace(api, request={"x": "$inputs"}), replace(api, labels=("a",)))})
        == 3
    )


def test_rows_come_as_x_and_y_or_by_name_or_alone(tmp_path: Path) -> None:
    rows = ROWS.astype(np.float32)
    np.savez(tmp_path / "xy.npz", x=rows, y=LABELS)
    np.savez(tmp_path / "named.npz", amount=rows[:, :1], rest=np.rint(rows[:, 1:]).astype(np.int64))
    np.save(tmp_path / "alone.npy", rows)
    np.save(tmp_path / "labels.npy", LABELS)
    layout, found, right = read_remote_rows(tmp_path / "xy.npz", None)
    assert [name for name, *_ in layout.inputs] == ["inputs"]
    assert right is not None
    assert (found == rows).all()
    assert (right == LABELS).all()
    layout, found, right = read_remote_rows(tmp_path / "named.npz", tmp_path / "labels.npy")
    assert [(name, shape, dtype.kind) for name, shape, dtype in layout.inputs] == [
        ("amount", (1,), "f"),
        ("rest", (2,), "i"),
    ]
    assert right is not None
    assert read_remote_rows(tmp_path / "alone.npy", None)[1].shape == (400, 3)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": ROWS, "b": ROWS[:10]}, "different numbers of rows"),
        ({"a": np.array([["text"]])}, "no numbers"),
        ({"a": ROWS[:, 0]}, "a list instead of a table"),
        ({"a": np.full((400, 2), np.nan)}, "NaN"),
        ({"x": ROWS, "y": LABELS - 1}, "from 0 on"),
    ],
)
def test_what_is_no_rows_is_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(FormatError, match=words):
        read_remote_rows(tmp_path / "rows.npz", None)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.array([print], object), allow_pickle=True)
    with pytest.raises(FormatError, match="holds no rows"):
        read_remote_rows(tmp_path / "rows.npy", None)
    assert probabilities(ROWS).shape == (400, 2)
