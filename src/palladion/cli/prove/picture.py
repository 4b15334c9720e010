"""The outcome of `prove mine` as a picture: one HTML file without scripts, in which each tensor has its colour."""

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from palladion.cli.prove.shared import blind_limits, strength, version_name

if TYPE_CHECKING:
    from palladion.lifecycle.prove import Tested
    from palladion.mark.weights import TensorFinding

STRONGEST = 5.0  # decades of -log10 p at which the colour is full: 1e-100000 and beyond
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.35rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.verdict { font-size: 1.1rem; font-weight: 600; }
.map { display: flex; flex-wrap: wrap; gap: 3px; margin: 1rem 0; }
.map div { width: 22px; height: 22px; border-radius: 3px; border: 1px solid #8886; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid #8884; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td.c { width: 1.2rem; }
td.c span { display: inline-block; width: 1rem; height: 1rem; border-radius: 3px; border: 1px solid #8886; }
td.name { word-break: break-all; }
footer { margin-top: 2rem; font-size: .85rem; opacity: .75; }
"""


def heat_map(suspect: str, outcomes: "Sequence[Tested]") -> str:
    """The page: for each version the verdict, a map of its tensors in their order, and the table behind it."""
    parts = "".join(_version(item) for item in outcomes)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f'<meta name="viewport" content="width=device-width"><title>{escape(suspect)}: is it ours?</title>'
        f"<style>{_STYLE}</style></head><body><h1>Is {escape(suspect)} ours?</h1>{parts}"
        "<footer>The p-value bounds the chance that a model which has nothing to do with our key looks like this. "
        "The colour of a tensor is the evidence in it alone, from grey (none) to green; none is a place that was not "
        "found in the suspect, or was changed too much to tell.</footer></body></html>\n"
    )


def _version(item: "Tested") -> str:
    found = item.ownership
    verdict = "carries our mark" if item.ours else "does not carry our mark"
    lines = [f"<h2>{escape(version_name(item))}</h2>"]
    lines.append(f'<p class="verdict">The suspect {verdict}: {escape(strength(item.log10_p))}.</p>')
    lines.append(f"<p>{len(found.tensors)} of {found.places} tensors were found in it.")
    if item.blind_log10_p is not None:
        lines.append(f" Tested without the original: {escape('; '.join(blind_limits([item])[:2]))}.")
    if found.payload_errors is not None:
        lines.append(f" {found.payload_errors} of 128 bits of what the mark says are read wrongly.")
    if item.needed:
        lines.append(f" To compare it, this had to be undone: {escape('; '.join(item.needed))}.")
    lines.append("</p>")
    cells = "".join(_cell(part) for part in found.tensors)
    missing = "".join(f'<div title="{escape(name)}: not found"></div>' for name in found.missing)
    compared = item.blind_log10_p is None
    rows = "".join(_row(part, compared=compared) for part in found.tensors)
    alike = '<th class="n">alike</th>' if compared else ""
    head = (
        f'<tr><th></th><th>tensor</th><th>in the suspect</th><th class="n">weights</th>{alike}'
        '<th class="n">log10 p alone</th></tr>'
    )
    return "".join(lines) + f'<div class="map">{cells}{missing}</div><table>{head}{rows}</table>'


def _cell(part: "TensorFinding") -> str:
    return f'<div style="background:{_colour(part.log10_p)}" title="{_label(part)}"></div>'


def _row(part: "TensorFinding", *, compared: bool) -> str:
    alike = f'<td class="n">{part.correlation:.3f}</td>' if compared else ""
    return (
        f'<tr><td class="c"><span style="background:{_colour(part.log10_p)}"></span></td>'
        f'<td class="name">{escape(part.tensor)}</td><td class="name">{escape(part.suspect)}</td>'
        f'<td class="n">{part.weights:,}</td>{alike}<td class="n">{part.log10_p:,.0f}</td></tr>'
    )


def _label(part: "TensorFinding") -> str:
    return escape(f"{part.tensor}: log10 p {part.log10_p:,.0f}", quote=True)


def _colour(log10_p: float) -> str:
    """From grey, at a tenth, to a full green, by decades of the exponent."""
    share = min(1.0, max(0.0, math.log10(max(1.0, -log10_p)) / STRONGEST))
    return f"hsl(140 {round(70 * share)}% {round(80 - 40 * share)}%)"
