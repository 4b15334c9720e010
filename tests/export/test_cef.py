"""CEF, read back by a parser that knows the specification and not our code."""

import re

import pytest
from hypothesis import given

from palladion.export import cef
from palladion.export.item import VERSION, Item, visible
from tests.export.items import ITEMS, SOURCE, WHO, answer, item


def parse(line: bytes) -> tuple[list[str], dict[str, str]]:
    """The seven fields of the header, and the extension."""
    text = line.decode()
    fields, place = [""], 0
    while len(fields) < 8:
        if text[place] == "\\":
            assert text[place + 1] in "\\|", "a header escapes these two"
            fields[-1] += text[place + 1]
            place += 2
        elif text[place] == "|":
            fields.append("")
            place += 1
        else:
            fields[-1] += text[place]
            place += 1
    found: dict[str, str] = {}
    names = list(re.finditer(r"(?:^| )([A-Za-z0-9]+)=", text[place:]))
    # an escaped equals sign has a backslash before it, which is no part of a name
    for this, following in zip(names, [*names[1:], None], strict=True):
        raw = text[place:][this.end() : following.start() if following else None]
        assert this[1] not in found
        found[this[1]] = re.sub(r"\\([\\=nr])", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), raw)
        assert not re.search(r"(?<!\\)(\\\\)*=", raw), "an equals sign stands bare"
    return fields[:7], found


def test_an_answer_as_a_line() -> None:
    header, extension = parse(cef.encode(answer(), SOURCE))
    assert header[:5] == ["CEF:0", "Palladion", "Palladion", VERSION, "answer.given"]
    assert header[6] == "1"
    assert extension["suid"] == extension["suser"] == WHO
    assert {extension["cs1"], extension["cs2"]} == {"fraud@3"}
    assert [extension[f"cs{n}Label"] for n in range(1, 7)] == [
        "subject",
        "model",
        "route",
        "standing",
        "leafHash",
        "log",
    ]
    assert (extension["rt"], extension["externalId"], extension["outcome"]) == ("1777638600123", "7", "success")


def test_a_detection_has_its_cause_and_ids() -> None:
    _, extension = parse(cef.encode(item("standing.changed", {"to": "suspended", "cause": "repeats"}), SOURCE))
    assert (extension["flexString1"], extension["flexString1Label"]) == ("repeats", "cause")
    assert extension["flexString2"] == "AML.T0024 AML.T0040 ML05:2023"
    assert "flexString1" not in parse(cef.encode(answer(), SOURCE))[1]


def test_a_name_stands_where_it_may_be_told_and_the_pseudonym_beside_it() -> None:
    _, extension = parse(cef.encode(item("answer.refused", {"requests": 3}, name="acme/web"), SOURCE))
    assert (extension["suser"], extension["suid"], extension["cnt"]) == ("acme/web", WHO, "3")


def test_details_are_cut_where_receivers_would() -> None:
    _, extension = parse(cef.encode(answer(text="=" * 5000), SOURCE))
    assert len(extension["msg"]) == cef.MESSAGE_CHARACTERS_MAX
    assert extension["msg"].endswith("…")


def test_a_kind_with_the_signs_of_a_header_stays_one_field() -> None:
    header, _ = parse(cef.encode(item("a|b\\c\n.d"), SOURCE))
    assert header[4] == "a|b\\c\\u000a.d"


@pytest.mark.slow
@given(ITEMS)
def test_no_content_breaks_a_line_or_becomes_a_field(found: Item) -> None:
    line = cef.encode(found, SOURCE)
    assert len(line.decode().splitlines()) == 1
    header, extension = parse(line)
    assert header[4] == found.record.kind
    assert extension.keys() <= {
        *("rt", "externalId", "cat", "suid", "suser", "outcome", "reason", "cnt", "msg"),
        *(f"cs{n}{label}" for n in range(1, 7) for label in ("", "Label")),
    }
    assert extension["externalId"] == str(found.number)
    reason = found.detail("reason")
    assert extension.get("reason", "") == visible(reason or "", keep="\n\r")
    assert extension.get("cs1", "") == visible(found.record.subject, keep="\n\r")
