"""The grid of attacks on a mark as a picture: a table of HTML, kinds by strengths, coloured by what is left.

No scripts, every word escaped. Colours say it in words too, for print and for who sees no red.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_PAGE = (
    "body{margin:1rem auto;max-width:60rem;padding:0 1rem;font:16px/1.5 system-ui,sans-serif}"
    "table{border-collapse:collapse;width:100%}"
)
_CELL = "border:1px solid #d8d8de;padding:.3rem .5rem;vertical-align:top;color:#1c1c1f;"
_STRONG = -30.0  # log10 p: from here on nobody argues
_COLOURS = {"proven": "#b7e4c7", "weak": "#fff3bf", "ruined": "#e9ecef", "removed": "#ffc9c9"}
_WORDS = {
    "proven": "the mark proves the copy to be ours",
    "weak": "it still does, with little to spare",
    "ruined": "the mark is gone, and so is the copy's use",
    "removed": "the mark is gone, and the copy is useful, or nobody measured that",
}


def grid(attacks: Sequence[dict[str, Any]]) -> str:
    """The table of the outcomes of a trial, as `Outcome.document` has them; empty for none."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for item in attacks:
        kinds.setdefault(str(item["kind"]), []).append(item)
    if not kinds:
        return ""
    rows = []
    width = max(map(len, kinds.values()))
    for kind, items in kinds.items():
        cells = "".join(map(_cell, items)) + f'<td style="{_CELL}"></td>' * (width - len(items))
        rows.append(f'<tr><th style="{_CELL}text-align:left;background:#f6f6f8">{escape(kind)}</th>{cells}</tr>')
    legend = "".join(
        f'<li><span style="{_CELL}background:{_COLOURS[state]}">{state}</span> {escape(words)}</li>'
        for state, words in _WORDS.items()
    )
    return f'<div class="wide"><table>{"".join(rows)}</table></div><ul>{legend}</ul>'


def page(title: str, attacks: Sequence[dict[str, Any]], usefulness: str) -> bytes:
    """The table as a page of its own. `usefulness` says what points are of."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_PAGE}</style></head><body><h1>{escape(title)}</h1>",
        f"<p>Each field: the attack, log10 p of what is left of the mark, and points lost ({escape(usefulness)}).</p>",
        grid(attacks),
        "</body></html>",
    ]
    return "\n".join(parts).encode()


def state_of(item: dict[str, Any]) -> str:
    """Where an attack left the mark: proven, weak, ruined (with the copy) or removed."""
    if item["found"]:
        return "proven" if item["log10_p"] <= _STRONG else "weak"
    return "removed" if item["useful"] else "ruined"


def _cell(item: dict[str, Any]) -> str:
    state = state_of(item)
    lost = "not measured" if item["points_lost"] is None else f"{item['points_lost']:.1f} points"
    copy = "" if item["copy_log10_p"] is None else f"<br>copy: {item['copy_log10_p']:.0f}"
    text = f"{escape(str(item['strength']))}<br><b>{item['log10_p']:.0f}</b> {state}{copy}<br>{lost}"
    return f'<td style="{_CELL}background:{_COLOURS[state]}">{text}</td>'
