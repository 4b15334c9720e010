"""Canonical XML: the same bytes as lxml writes, and a refusal of everything that signatures are smuggled past with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.attest.nvidia.canonical_xml import ATTRIBUTES_MAX, BYTES_MAX, DEPTH_MAX, ELEMENTS_MAX, canonical, parse
from palladion.errors import FormatError
from tests.attest.refusals import VECTORS

NAMES = st.sampled_from(["a", "b", "c"])
TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_characters="\x7f"), max_size=12)
DECLARED = ['xmlns="u:1"', 'xmlns:p="u:2"', 'xmlns:q="u:1"', 'xmlns:p="u:3"']


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


@st.composite
def documents(draw: st.DrawFn, depth: int = 3) -> str:
    declared = draw(st.lists(st.sampled_from(DECLARED), max_size=2, unique_by=lambda text: text.split("=")[0]))
    attributes = draw(st.dictionaries(st.sampled_from(["z", "y", "r:x", "r:a", "s:a"]), TEXT, max_size=3))
    inner = "".join(
        escaped(draw(TEXT)) + (draw(documents(depth - 1)) if depth else "") for _ in range(draw(st.integers(0, 2)))
    )
    name = draw(NAMES) if not draw(st.booleans()) else f"r:{draw(NAMES)}"
    written = "".join(f' {key}="{escaped(value)}"' for key, value in attributes.items())
    return f"<{name} {' '.join(declared)}{written}>{inner}</{name}>"


@given(documents())
def test_it_is_what_another_library_writes(inner: str) -> None:
    etree = pytest.importorskip("lxml.etree", reason="lxml, of the thorough extra, is not installed")
    text = f'<top xmlns:s="u:9" xmlns:r="u:5" b="1" a="2">{inner}</top>'.encode()
    ours = parse(text, what="it")
    theirs = etree.fromstring(text)
    assert canonical(ours) == etree.tostring(theirs, method="c14n")
    # a part brings along every namespace that is in force where it stands, and is a document of its own
    # (lxml's own way for parts loses a namespace in some nestings: <a xmlns="u"><a><a/></a></a>)
    part = canonical(ours.elements()[0])
    assert part == etree.tostring(etree.fromstring(part), method="c14n")
    assert b' xmlns:r="u:5" xmlns:s="u:9"' in part.split(b">")[0]


@pytest.mark.parametrize("name", ["driver_rim.xml", "vbios_rim.xml"])
def test_nvidias_own_documents_are_written_alike(name: str) -> None:
    etree = pytest.importorskip("lxml.etree", reason="lxml, of the thorough extra, is not installed")
    text = (VECTORS / "nvidia" / name).read_bytes()
    assert canonical(parse(text, what="it")) == etree.tostring(etree.fromstring(text), method="c14n")


def _read(text: str) -> None:
    element = parse(text.encode(), what="it")
    assert element.tag
    element.resolved()


@pytest.mark.parametrize(
    "text",
    [
        "", "text", "<a>", "<a></b>", "<a/><b/>", "<a x='1' x='2'/>", "<p:a/>", "<a p:x='1'/>", "\x00",
        "<!DOCTYPE a><a/>", "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>", "<a>&e;</a>", "<?pi x?><a/>", "<a><?pi x?></a>",
        "<?xml version='1.0'?><a/>", "<a><!-- c --></a>", "<a><![CDATA[x]]></a>", "<a xml:id='x'/>",
        "<a xml:lang='x'/>",
        "<a xmlns:p='u'><b xmlns:p=''/></a>", "<a xmlns='u'><b xmlns=''/></a>",
        "<a>" * (DEPTH_MAX + 1) + "</a>" * (DEPTH_MAX + 1),
        "<a>" + "<b/>" * ELEMENTS_MAX + "</a>",
        "<a " + " ".join(f"x{n}='1'" for n in range(ATTRIBUTES_MAX + 1)) + "/>",
        "<a>" + " " * BYTES_MAX + "</a>",
    ],
)  # fmt: skip
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match=r"^it "):
        _read(text)


def test_text_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(FormatError):
        parse("<a>é</a>".encode("latin-1"), what="it")


def test_attributes_of_one_name_under_two_prefixes_are_refused() -> None:
    element = parse(b"<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>", what="it")
    with pytest.raises(FormatError, match="twice"):
        element.resolved()
