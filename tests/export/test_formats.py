"""Lines of files, and messages on connections."""

import json
import unicodedata
from collections.abc import Callable

import pytest
import rfc8785
from hypothesis import given

from palladion.export.formats import FORMS, encode_record, line_of, one_line
from palladion.export.item import Item
from palladion.ledger import merkle
from tests.export.items import ITEMS, SOURCE, answer
from tests.export.test_syslog import split


def test_a_record_is_as_it_is_with_its_number_and_leaf_hash() -> None:
    found = json.loads(encode_record(answer(), SOURCE))
    assert found == {"entry": 7, "leaf": answer().leaf, "record": json.loads(answer().data)}


@pytest.mark.slow
@given(ITEMS)
def test_a_record_still_leads_to_its_leaf_hash_and_nothing_names_a_client_in_it(found: Item) -> None:
    line = encode_record(found, SOURCE)
    document = json.loads(line)
    assert len(line.decode().splitlines()) == 1
    assert document.get("client") == found.name
    assert merkle.leaf_hash(rfc8785.dumps(document["record"])).hex() == document["leaf"]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@given(items=ITEMS)
def test_a_file_has_one_line_for_an_entry_whoever_splits_it(form: str, items: Item) -> None:
    assert len(line_of(FORMS[form].line(items, SOURCE)).decode().splitlines()) == 1


@pytest.mark.parametrize(("form", "told_apart"), [("ocsf", bytes.splitlines), ("syslog", split), ("cef", split)])
def test_messages_are_told_apart_as_their_form_has_it(form: str, told_apart: Callable[[bytes], list[bytes]]) -> None:
    messages = [FORMS[form].message(answer(text=text), SOURCE) for text in ("a\nb", "c")]
    assert told_apart(b"".join(map(FORMS[form].framed, messages))) == messages


def test_what_ends_no_line_stays() -> None:
    assert one_line('{"a":"é\u2028"}'.encode()) == '{"a":"é\\u2028"}'.encode()
    assert one_line(b'{"a":"\x7f"}') == b'{"a":"\\u007f"}'


@pytest.mark.slow
@given(ITEMS)
def test_nothing_that_steers_a_terminal_leaves(found: Item) -> None:
    for form in FORMS.values():
        line = form.line(found, SOURCE).decode()
        assert not [letter for letter in line if unicodedata.category(letter) in {"Cc", "Zl", "Zp"}]
