"""Documents by paths: what is read where, that the same is written again, and paths that contradict each other."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.gate.protocols.json_tree import INDEX_MAX, SEGMENTS_MAX, MisfitError, Tree, parse_path, shown


def _misfit(tree: Tree, document: Any, rows_max: int = 8) -> tuple[str, str]:
    with pytest.raises(MisfitError) as caught:
        tree.read(document, rows_max=rows_max)
    return caught.value.place, str(caught.value)


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("$", ()),
        ("$.instances[*]", ("instances", None)),
        ("$.a-b.c_1[0]['d e'][*].x", ("a-b", "c_1", 0, "d e", None, "x")),
        (f"$[{INDEX_MAX}]", (INDEX_MAX,)),
    ],
)
def test_a_path_is_names_indexes_and_rows(text: str, segments: tuple[object, ...]) -> None:
    assert parse_path(text) == segments


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "$a", "$.", "$..a", "$.a.", "$[", "$[-1]", "$[01]", "$[1:2]", "$[?(@.a)]", "$.*", "$[*][*]", "$['']",
        "$['a'b']", '$["a"]', "$.a\n", "$.ä", "$[64]", "$[1e1]", "$" + ".a" * (SEGMENTS_MAX + 1), "$.a [0]",
    ],
)  # fmt: skip
def test_anything_else_is_no_path(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no path of|has an index above|more than once"):
        parse_path(text)


def test_rows_of_objects_are_read_by_member() -> None:
    tree = Tree(["$.rows[*].x", "$.rows[*].y[0]"], whole=True)
    assert tree.read({"rows": [{"x": 1, "y": [2]}, {"x": 3, "y": [4]}]}, rows_max=8) == [[1, 3], [2, 4]]


def test_columns_beside_each_other_are_read_as_rows() -> None:
    tree = Tree(["$.age[*]", "$.country[*]"], whole=True)
    assert tree.read({"age": [1, 2], "country": ["a", "b"]}, rows_max=8) == [[1, 2], ["a", "b"]]


def test_without_rows_a_document_is_one() -> None:
    assert Tree(["$.x", "$.y"], whole=True).read({"x": [1], "y": "b"}, rows_max=8) == [[[1]], ["b"]]
    assert Tree(["$"], whole=True).read([1], rows_max=8) == [[[1]]]


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ([], "$"),
        ({}, "$.rows"),
        ({"rows": {}}, "$.rows"),
        ({"rows": []}, "$.rows"),
        ({"rows": [{"x": 1}] * 9}, "$.rows"),
        ({"rows": [{"x": 1}, {}]}, "$.rows[1].x"),
        ({"rows": [{"x": 1}, 7]}, "$.rows[1]"),
        ({"rows": [{"x": 1}, {"x": 1, "a b": 2}]}, "$.rows[1]['a b']"),
        ({"rows": [{"x": 1}], "more": 1}, "$.more"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(document: Any, place: str) -> None:
    assert _misfit(Tree(["$.rows[*].x"], whole=True), document)[0] == place


def test_of_an_answer_only_what_is_named_is_looked_at() -> None:
    tree = Tree(["$.p[1].x[*]"], whole=False)
    assert tree.read({"p": ["?", {"x": [5], "y": 1}, 3], "q": {}}, rows_max=1) == [[5]]
    assert _misfit(tree, {"p": ["?"]})[0] == "$.p"


def test_constants_may_be_left_out_or_repeated_and_are_written() -> None:
    tree = Tree(["$.x[*]"], [("$.o.name", "serving"), ("$.n", 1)], whole=True)
    for document in ({"x": [1]}, {"x": [1], "n": 1, "o": {}}, {"x": [1], "o": {"name": "serving"}}):
        assert tree.read(document, rows_max=8) == [[1]]
    for document, place in (({"x": [1], "n": True}, "$.n"), ({"x": [1], "o": {"name": "other"}}, "$.o.name")):
        assert _misfit(tree, document)[0] == place
    assert tree.write([[1, 2]]) == {"x": [1, 2], "o": {"name": "serving"}, "n": 1}


def test_what_is_left_out_leaves_no_trace() -> None:
    tree = Tree(["$.rows[*].x", "$.rows[*].y", "$.other[1]"], whole=False)
    assert tree.write([None, [3, 4], None]) == {"rows": [{"y": 3}, {"y": 4}]}
    assert tree.write([None, None, [5]]) == {"other": [None, 5]}
    assert tree.write([None, None, None]) is None


@pytest.mark.parametrize(
    ("paths", "constants"),
    [
        (["$.a", "$.a"], []),
        (["$.a", "$.a.b"], []),
        (["$.a.b", "$.a"], []),
        (["$.a[*]", "$.a[0]"], []),
        (["$.a[*]", "$.b"], []),
        (["$.a[1]"], []),
        (["$.a[*]"], [("$.b[*]", 1)]),
        (["$.a[*]"], [("$.a", 1)]),
    ],
)
def test_paths_in_each_others_way_are_refused(paths: list[str], constants: list[tuple[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"leads|the rows are counted|begin with|for one value"):
        Tree(paths, constants, whole=True)


def test_as_many_paths_as_no_document_has_are_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        Tree([f"$.a{number}" for number in range(1025)], whole=True)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "an object"), ([1], "an array of 1"), ("a\n", r"the text 'a\n'"), (None, "null"), (True, "true"),
        (1.5, "the number 1.5"), (10**400, "a large number"),
    ],
)  # fmt: skip
def test_a_value_is_told_in_a_few_words(value: Any, words: str) -> None:
    assert shown(value) == words


@given(st.integers(1, 5), st.sampled_from([["$[*]"], ["$.a[*]", "$.b.c[*]"], ["$.r[*][0]", "$.r[*][1].x"]]))
def test_what_was_written_is_read_again(rows: int, paths: list[str]) -> None:
    values = [[[number, row] for row in range(rows)] for number in range(len(paths))]
    tree = Tree(paths, whole=True)
    assert tree.read(tree.write(values), rows_max=rows) == values


def test_documents_that_hold_nothing_else_are_not_read_by_skipping() -> None:
    with pytest.raises(ValueError, match="has to be refused"):
        Tree(["$.a"], whole=True).unread(1)


@pytest.mark.parametrize(
    ("path", "document", "texts"),
    [
        ("$", b" [1] ", [b"[1]"]),
        ("$.a.b", b'{"a":{"z":0,"b":"x"}}', [b'"x"']),
        ("$.a[*]", b'{"a":[1,[2]]}', [b"1", b"[2]"]),
        ("$[*].a[1]", b'[{"a":[0,1]},{"a":[0,2,3]}]', [b"1", b"2"]),
    ],
)
def test_values_are_left_as_text_where_they_are_not_read_yet(path: str, document: bytes, texts: list[bytes]) -> None:
    tree = Tree([path], whole=False)
    found = tree.read(msgspec.json.decode(document, type=tree.unread(2)), rows_max=2)
    assert [bytes(text) for text in found[0]] == texts


@pytest.mark.parametrize(
    "document", [b"{}", b'{"a":[]}', b'{"a":[{"b":1}]}', b'{"a":[{"b":1},{}]}', b'{"a":{}}', b"[]"]
)
def test_what_is_missing_among_texts_is_missing(document: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(document, type=Tree(["$.a[*].b"], whole=False).unread(2))
