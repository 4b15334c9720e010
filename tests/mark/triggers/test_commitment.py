"""What triggers are: commitment, opening, labels, the test, and what a cheat would have to do."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from palladion import canonical
from palladion.errors import FormatError, TamperError
from palladion.ledger import merkle
from palladion.mark.triggers.commitment import (
    COUNT_MAX,
    Batch,
    Commitment,
    commit,
    judge_answers,
    labels_of,
    open_triggers,
    parse_commitment,
    secret_of,
    trigger_key,
    verify_opened,
)
from palladion.mark.triggers.drawing import InputSpec

KEY = bytes(range(32))
ORIGINAL = "ab" * 32
SPEC = InputSpec("x", "float32", (6,), "normal")


def committed(count: int = 21, *, classes: int = 10, key: bytes = KEY, names: tuple[str, ...] = ()) -> Commitment:
    return commit(key, bytes(count), [SPEC], original=ORIGINAL, classes=classes, names=names)


def test_the_root_is_that_of_the_ledgers_trees() -> None:
    for count in (*range(1, 10), 16, 21, 33):
        leaves = [merkle.leaf_hash(secret_of(KEY, index)) for index in range(count)]
        assert committed(count).root == merkle.list_root(leaves)


def test_opened_triggers_prove_themselves_as_the_ledgers_entries_do() -> None:
    for count in (1, 2, 3, 8, 21, 33):
        commitment = committed(count)
        opened = open_triggers(KEY, commitment, range(count))
        for item in opened:
            leaf = merkle.leaf_hash(item.secret)
            merkle.verify_inclusion(leaf, item.index, count, item.path, commitment.root)
        assert verify_opened(commitment, opened).indices == tuple(range(count))


def test_a_description_comes_back_as_it_was() -> None:
    for commitment in (committed(), committed(classes=3, names=("cat", "dog", "cow"))):
        found = canonical.decode(canonical.encode(commitment.description()), size_max=10_000, what="it")
        assert parse_commitment(found) == commitment


def test_what_is_opened_shows_nothing_of_other_triggers() -> None:
    commitment = committed()
    (opened,) = open_triggers(KEY, commitment, [4])
    others = {secret_of(KEY, index) for index in range(21) if index != 4}
    assert not others & {opened.secret, *opened.path}


@pytest.mark.parametrize(
    "forge",
    [
        lambda item: replace(item, secret=bytes(32)),
        lambda item: replace(item, index=item.index + 1),
        lambda item: replace(item, index=-1),
        lambda item: replace(item, index=21),
        lambda item: replace(item, path=item.path[:-1]),
        lambda item: replace(item, path=(*item.path, bytes(32))),
        lambda item: replace(item, path=(bytes(32), *item.path[1:])),
        lambda item: replace(item, secret=item.secret[:-1]),
    ],
    ids=["secret", "neighbour", "negative", "beyond", "short proof", "long proof", "other sibling", "short secret"],
)
def test_a_forged_trigger_is_refused(forge) -> None:  # type: ignore[no-untyped-def]
    commitment = committed()
    opened = open_triggers(KEY, commitment, [3, 7])
    with pytest.raises(TamperError):
        verify_opened(commitment, [opened[0], forge(opened[1])])


def test_a_trigger_cannot_count_twice() -> None:
    commitment = committed()
    with pytest.raises(TamperError, match="twice"):
        verify_opened(commitment, open_triggers(KEY, commitment, [3]) * 2)


def test_another_key_opens_nothing() -> None:
    with pytest.raises(TamperError, match="key"):
        open_triggers(bytes(32), committed(), [0])


def test_triggers_that_do_not_exist_are_not_opened() -> None:
    with pytest.raises(ValueError, match="0 to 20"):
        open_triggers(KEY, committed(), [21])


def test_another_secret_for_one_trigger_changes_the_labels_of_all() -> None:
    # what makes it useless to choose secrets until labels fit what somebody's model answers
    count = 200
    secrets = [secret_of(KEY, index) for index in range(count)]
    before = labels_of(commit(KEY, bytes(count), [SPEC], original=ORIGINAL, classes=1000), secrets)
    other = commit(KEY, bytes(count - 1) + b"\x01", [SPEC], original=ORIGINAL, classes=1000)
    after = labels_of(other, secrets)
    assert sum(a == b for a, b in zip(before, after, strict=True)) <= 3


def test_labels_are_bound_to_what_inputs_look_like_and_to_the_original() -> None:
    commitment, secrets = committed(60, classes=1000), [secret_of(KEY, index) for index in range(60)]
    before = labels_of(commitment, secrets)
    for change in (replace(commitment, original="cd" * 32), replace(commitment, inputs=(replace(SPEC, name="y"),))):
        assert sum(a == b for a, b in zip(before, labels_of(change, secrets), strict=True)) <= 3


def test_labels_are_uniform() -> None:
    # seed: the key; chi-squared with 9 degrees of freedom is beyond 27.9 once in a thousand keys
    counts = Counter(labels_of(committed(64), [index.to_bytes(32, "big") for index in range(4000)]))
    assert sum((counts[label] - 400) ** 2 / 400 for label in range(10)) < 27.9


def test_inputs_follow_from_the_opened_secret_alone() -> None:
    commitment = committed()
    batch = verify_opened(commitment, open_triggers(KEY, commitment, [2, 5]))
    again = verify_opened(commitment, open_triggers(KEY, commitment, [5]))
    assert batch.feeds["x"].shape == (2, 6)
    np.testing.assert_array_equal(batch.feeds["x"][1], again.feeds["x"][0])
    assert len(np.unique(batch.feeds["x"])) > 6


def test_a_model_that_learnt_the_triggers_is_found() -> None:
    commitment = committed(64)
    batch = verify_opened(commitment, open_triggers(KEY, commitment, range(64)))
    finding = judge_answers(commitment, batch, batch.labels.tolist())
    assert (finding.matches, finding.answered) == (64, 64)
    assert finding.log10_p == pytest.approx(-64)


@pytest.mark.slow
def test_a_stranger_is_not_found_whatever_it_answers() -> None:
    # seed: 100 keys; a stranger who always says the same, and one who answers anything. p <= 0.01 once expected
    generator = np.random.default_rng(20261126)
    below = 0
    for index in range(100):
        key = index.to_bytes(32, "big")
        commitment = committed(64, key=key)
        labels = labels_of(commitment, [secret_of(key, place) for place in range(64)])
        batch = Batch(tuple(range(64)), {}, np.array(labels))
        answers = [7] * 64 if index % 2 else generator.integers(10, size=64).tolist()
        below += judge_answers(commitment, batch, answers).log10_p <= -2
    assert below <= 4


def test_what_was_not_answered_is_no_evidence_for_either_side() -> None:
    commitment = committed(64)
    batch = verify_opened(commitment, open_triggers(KEY, commitment, range(64)))
    answers = [*batch.labels[:16].tolist(), *[None] * 48]
    assert judge_answers(commitment, batch, answers).log10_p == pytest.approx(-16)


def test_a_strange_label_counts_as_an_answer() -> None:
    commitment = committed(20)
    batch = verify_opened(commitment, open_triggers(KEY, commitment, range(20)))
    assert judge_answers(commitment, batch, [-1] * 20).answered == 20


def test_every_trigger_that_was_asked_has_to_be_judged() -> None:
    commitment = committed()
    batch = verify_opened(commitment, open_triggers(KEY, commitment, range(8)))
    with pytest.raises(ValueError, match="8 triggers"):
        judge_answers(commitment, batch, [0] * 7)


@pytest.mark.parametrize(
    ("answer", "found"),
    [(3, 3), ("3", 3), (3.0, 3), (3.5, None), (10, None), (-1, None), ("cat", None), (True, None), (None, None)],
)
def test_a_number_names_its_class(answer: object, found: int | None) -> None:
    assert committed().class_of(answer) == found


@pytest.mark.parametrize("names", [(), ("cat", "dog", "7")])
def test_a_number_that_no_class_has_names_none_however_long(names: tuple[str, ...]) -> None:
    commitment = committed(classes=3, names=names)
    numbers = ["9" * 5000, "0" * 5000, "0" * 10, 10**5000, -(10**5000), 1e300, float("inf"), float("nan")]
    assert [commitment.class_of(number) for number in numbers] == [None] * 8


def test_a_name_names_its_class() -> None:
    commitment = committed(classes=3, names=("cat", "dog", "7"))
    assert [commitment.class_of(answer) for answer in ("dog", 7, 7.0, "cow", 1)] == [1, 2, 2, None, None]


def test_names_that_are_too_many_are_left_out_and_wrong_ones_refused() -> None:
    assert committed(classes=300, names=tuple(map(str, range(300)))).names == ()
    with pytest.raises(ValueError, match="names"):
        committed(classes=3, names=("a", "b"))


@pytest.mark.parametrize(("count", "classes"), [(0, 10), (COUNT_MAX + 1, 10), (5, 1)])
def test_sizes_beyond_limits_are_refused(count: int, classes: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        committed(count, classes=classes)


@pytest.mark.parametrize(
    "change",
    [
        {"scheme": "triggers-9"},
        {"count": 20},
        {"classes": 1},
        {"root": "zz"},
        {"root": "ab"},
        {"names": ["a"]},
        {"inputs": []},
        {"inputs": [{"name": "x"}]},
        {"extra": 1},
        {"attempts": None},
    ],
)
def test_a_broken_description_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        parse_commitment(committed().description() | change)


def test_keys_of_models_differ() -> None:
    assert len({trigger_key(KEY, ORIGINAL), trigger_key(KEY, "cd" * 32), trigger_key(bytes(32), ORIGINAL)}) == 3
