"""The page: complete, self-contained, and nothing in it is code of somebody else's."""

from html.parser import HTMLParser
from typing import Any

import pytest

from palladion.redteam.audit.html import to_html
from palladion.redteam.audit.result import Observation, StageResult
from palladion.redteam.audit.svg import BOTTOM, HEIGHT, TOP
from tests.redteam.audit.subjects import done, figure
from tests.redteam.audit.test_document import report

EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"
ROC = {"false_positive_rates": [1e-4, 0.01, 1.0], "true_positive_rates": [0.001, 0.2, 1.0]}


class _Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def _full(text: str = "words") -> dict[str, Any]:
    document = report()
    thieves = [
        {"door": door, "thief": thief, "way": "raw", "queries": queries, "mean": mean, "low": mean - 0.05, "high": mean}
        for door, thief, queries, mean in [
            (text, "own rows", 100, 0.5),
            (text, "far", 100, 0.7),
            (text, "far", 1000, 0.9),
            ("degraded", "far", 100, 0.6),
        ]
    ]
    member = {
        text: {"strongest": "LiRA", "attacks": {"LiRA": {"roc": ROC}}},
        "weak": {"strongest": None, "attacks": {}},
    }
    seen = (Observation("exposed-surface", "warning", text, text),)
    document["stages"] = [
        done("extraction", figure("extraction.fidelity", 0.9, 0.8, 0.95), details={"thieves": thieves}).document(),
        done("membership", details=member).document(),
        StageResult("surface", "done", (text,), (), seen).document(),
        StageResult(text, "inconclusive", (text,)).document(),
    ]
    document["bars"][0]["reason"] = document["subject"]["name"] = document["program"] = text
    return document


def test_words_of_others_stay_words() -> None:
    found = _Tags(to_html(_full(EVIL)).decode())
    assert found.text.count(EVIL) >= 8
    assert not {"script", "img", "iframe", "link", "object"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on") or name in {"src", "href"}]
    assert "xlink" not in to_html(_full(EVIL)).decode()


def test_it_shows_verdict_bars_figures_and_plots() -> None:
    page = to_html(_full()).decode()
    found = _Tags(page)
    assert found.tags.count("svg") == 2
    # the best thief alone, at each door: of .5 and .7 after 100 queries it is .7
    assert page.count("<circle") == 3
    places = [float(part.split('"')[0]) for part in page.split('cy="')[1:]]
    heights = [TOP + (1 - value) * (HEIGHT - TOP - BOTTOM) for value in (0.7, 0.9, 0.6)]
    assert places == pytest.approx(heights, abs=0.1)
    for words in ("fail: a bar fails", "0.8 to 0.95", "warning", "by chance", "words, LiRA"):
        assert words in found.text
    assert ("name", "viewport") in found.attributes


def test_a_phone_scrolls_tables_and_not_the_page() -> None:
    page = to_html(_full()).decode()
    assert page.count('<div class="wide"><table>') == page.count("<table>") >= 2


@pytest.mark.parametrize("verdict", ["pass", "inconclusive"])
def test_every_verdict_has_words(verdict: str) -> None:
    document = report(value=0.5) | {"verdict": verdict, "bars": [], "regressions": []}
    assert "No bar is set" in to_html(document).decode()
