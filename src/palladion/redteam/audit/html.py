"""A report as one page of HTML: no scripts, nothing from elsewhere, every word escaped; it reads on a phone too."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from palladion.redteam.audit.grid import grid
from palladion.redteam.audit.rules import RULES
from palladion.redteam.audit.svg import Line, Point, plot

_VERDICTS = {
    "pass": "every bar holds",
    "fail": "a bar fails, or something got worse",
    "inconclusive": "it cannot be said whether the bars hold",
}
_STANDS = {"pass": "holds", "fail": "fails", "inconclusive": "undecided"}
# nothing is loaded and nothing runs, even if a word should get through
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root{color-scheme:light dark;--ink:#1c1c1f;--soft:#5b5b66;--rule:#d8d8de;--back:#fff;--card:#f6f6f8;--good:#0f766e;
--bad:#b42318;--open:#9a6700}
@media(prefers-color-scheme:dark){:root{--ink:#ececf1;--soft:#a5a5b1;--rule:#3b3b44;--back:#17171a;--card:#202025;
--good:#5ec9bb;--bad:#ff8a7a;--open:#e3b341}svg{background:#fff;border-radius:6px}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1rem;background:var(--back);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:break-word}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--rule)}
.verdict{padding:.7rem 1rem;border-left:6px solid;background:var(--card);font-weight:600}
.pass{color:var(--good)}.fail,.error{color:var(--bad)}.inconclusive,.warning{color:var(--open)}.note,.soft{color:var(--soft)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;margin:.5rem 0}
th,td{text-align:left;padding:.35rem .6rem .35rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
h1,li,.facts td+td{overflow-wrap:anywhere}.facts td:first-child{white-space:nowrap}
td.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
svg{width:100%;height:auto;max-width:44rem;font:12px system-ui,sans-serif}
svg text{fill:#3a3a42}.grid{stroke:#e2e2e6;fill:none}.line{fill:none;stroke-width:2}.bar{fill:none;stroke-width:1.5}
"""


def to_html(document: dict[str, Any]) -> bytes:
    """The page."""
    subject, verdict = document["subject"], document["verdict"]
    # nothing holds where nothing was asked for
    unset = verdict == "pass" and not document["bars"] and not document["regressions"]
    meaning = "no bar is set" if unset else _VERDICTS[verdict]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Audit of {escape(str(subject['name']))}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Audit of {escape(str(subject['name']))}</h1>",
        f'<p class="verdict {escape(verdict)}">{escape(verdict)}: {escape(meaning)}</p>',
        _facts(document),
        *_bars(document),
    ]
    for stage in document["stages"]:
        parts += _stage(stage)
    parts.append(
        "<h2>What this does not say</h2><p>That the model is protected. It says what these attacks got with this many "
        "queries; others may get more. Intervals are of 95 %.</p></body></html>"
    )
    return "\n".join(part for part in parts if part).encode()


def _facts(document: dict[str, Any]) -> str:
    subject, plan = document["subject"], document["plan"]
    doors = ", ".join(f"{door['name']} ({door['answers']})" for door in subject["doors"])
    rows = [
        ("made", f"{document['times']['started']}, {document['program']}, {document['times']['seconds']:g} s"),
        ("digest", subject["digest"]),
        ("doors", doors),
        ("plan", f"profile {plan['profile']}, seed {plan['seed']}, at most {plan['queries']} queries"),
        ("queries", str(document["queries"])),
        ("data", f"{subject['rows']} rows, {subject['training']} of training"),
    ]
    return f'<div class="facts">{_table((), rows)}</div>'


def _bars(document: dict[str, Any]) -> list[str]:
    judged = [*document["bars"], *document["regressions"]]
    if not judged:
        return ['<p class="soft">No bar is set: figures are shown, and none fails.</p>']
    items = (
        f'<li><b class="{escape(item["verdict"])}">{_STANDS[item["verdict"]]}</b>: {escape(item["reason"])}</li>'
        for item in judged
    )
    return ["<h2>Bars</h2><ul>", *items, "</ul>"]


def _stage(stage: dict[str, Any]) -> list[str]:
    name = str(stage["stage"])
    title = RULES[name].title if name in RULES else ""
    parts = [f"<h2>{escape(name.capitalize())}</h2>"]
    if title and stage["outcome"] == "done":
        parts.append(f'<p class="soft">{escape(title)}?</p>')
    outcome = f"{stage['outcome']}, {stage['queries']} queries"
    parts.append(f'<p class="{escape(str(stage["outcome"]))}">{escape(outcome)}</p>')
    parts += [f"<p>{escape(str(reason))}</p>" for reason in stage["reasons"]]
    if stage["figures"]:
        rows = [(item["words"], f"{item['value']:.4g}", _interval(item), item["unit"]) for item in stage["figures"]]
        parts.append(_table(("figure", "value", "95 % interval", ""), rows, numbers=(1, 2)))
    if stage["observations"]:
        parts.append("<ul>")
        for seen in stage["observations"]:
            level, text = escape(str(seen["level"])), escape(str(seen["text"]))
            parts.append(f'<li><b class="{level}">{level}</b>: {text}</li>')
        parts.append("</ul>")
    parts += _plots(name, stage["details"])
    return parts


def _plots(name: str, details: Any) -> list[str]:
    if name == "extraction" and "thieves" in details:
        return [
            plot(_thefts(details["thieves"]), title="Fidelity of the best copy", x="queries", y="fidelity"),
            '<p class="soft">The best thief for each door and number of queries, with its interval.</p>',
        ]
    if name == "removal" and "attacks" in details:
        points = escape(str(details["usefulness"]))
        return [grid(details["attacks"]), f'<p class="soft">Points lost: {points}.</p>']
    if name == "membership":
        return [plot(_rocs(details), title="Who finds members", x="false alarms", y="members found", log_y=True)]
    return []


def _thefts(table: Sequence[dict[str, Any]]) -> list[Line]:
    best: dict[tuple[str, int], dict[str, Any]] = {}
    for item in table:
        place = str(item["door"]), int(item["queries"])
        if place not in best or item["mean"] > best[place]["mean"]:
            best[place] = item
    doors = dict.fromkeys(door for door, _ in best)
    return [
        Line(door, tuple(_point(queries, best[door, queries]) for at, queries in sorted(best) if at == door))
        for door in doors
    ]


def _point(queries: int, item: dict[str, Any]) -> Point:
    return Point(queries, item["mean"], item["low"], item["high"])


def _rocs(details: dict[str, Any]) -> list[Line]:
    lines = []
    for door, report in details.items():
        attack = report["attacks"].get(report["strongest"])
        if attack is not None:
            roc = attack["roc"]
            rates = zip(roc["false_positive_rates"], roc["true_positive_rates"], strict=True)
            lines.append(Line(f"{door}, {report['strongest']}", tuple(Point(x, y) for x, y in rates)))
    if lines:
        lines.append(Line("by chance", tuple(Point(10.0**-e, 10.0**-e) for e in (4, 3, 2, 1, 0))))
    return lines


def _table(head: Iterable[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = [f"<tr>{cells}</tr>"] if cells else []
    for row in rows:
        made = (
            f"<td{' class=n' if place in numbers else ''}>{escape(str(cell))}</td>" for place, cell in enumerate(row)
        )
        lines.append(f"<tr>{''.join(made)}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _interval(item: dict[str, Any]) -> str:
    return "–" if item["low"] is None else f"{item['low']:.4g} to {item['high']:.4g}"
