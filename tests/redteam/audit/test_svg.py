"""Plots: whole XML, in their frame, with every word escaped."""

from xml.etree import ElementTree

import pytest

from palladion.redteam.audit.svg import HEIGHT, WIDTH, Line, Point, plot

LINE = Line("<b>own & others</b>", (Point(100, 0.5, 0.4, 0.6), Point(1000, 0.9, 0.8, 1.0)))


def test_it_is_xml_and_says_its_words_as_they_are() -> None:
    found = ElementTree.fromstring(plot([LINE], title="a < b", x="<x>", y="y"))
    texts = [item.text for item in found.iter() if item.tag.endswith("text")]
    assert "<b>own & others</b>" in texts
    assert "<x>" in texts
    assert {"100", "1000"} <= set(texts)


def test_each_interval_has_a_bar_and_a_higher_value_stands_higher() -> None:
    found = ElementTree.fromstring(plot([LINE], title="t", x="x", y="y"))
    assert len([item for item in found.iter() if item.get("class") == "bar"]) == 2
    first, second = [float(item.attrib["cy"]) for item in found.iter() if item.tag.endswith("circle")]
    assert 0 < second < first < HEIGHT


@pytest.mark.parametrize("values", [(-3.0, 7.0), (0.0, 0.0), (1e-9, 1.0)])
@pytest.mark.parametrize("log_y", [False, True])
def test_nothing_leaves_the_frame(values: tuple[float, float], log_y: bool) -> None:
    line = Line("a", tuple(Point(x, y, y, y) for x, y in zip((1e-6, 1e9), values, strict=True)))
    for item in ElementTree.fromstring(plot([line], title="t", x="x", y="y", log_y=log_y)).iter():
        if item.tag.endswith("circle"):
            assert 0 <= float(item.attrib["cx"]) <= WIDTH
            assert 0 <= float(item.attrib["cy"]) <= HEIGHT


def test_nothing_is_drawn_of_nothing() -> None:
    assert plot([Line("a", ()), Line("b", (Point(0, 0.5),))], title="t", x="x", y="y") == ""
