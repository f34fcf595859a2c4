"""Bars as inline SVG: widths in percent, so that they fit any screen while their text stays text."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

STYLE = """
.chart { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr minmax(8rem, max-content);
  gap: .35rem 1rem;
  align-items: center; margin: 1rem 0 } .chart svg { width: 100%; height: 1.15rem; display: block; overflow: visible }
.chart .value { font-variant-numeric: tabular-nums } .chart .value small { color: #6a7689 }
.chart .axis { grid-column: 2; font-size: .82rem; color: #6a7689; position: relative; height: 1.2rem }
.chart .axis span { position: absolute; transform: translateX(-50%); white-space: nowrap }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; font-size: .9rem; color: #46526a }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: .4rem;
  vertical-align: -.08rem }
@media (max-width: 40rem) { .chart { grid-template-columns: 1fr; gap: .1rem } .chart .value { margin-bottom: .6rem }
  .chart .axis { grid-column: 1 } }
"""
BLUE, GREY, TRACK, BAND, RED = "#2f6fdb", "#b9c3d3", "#eef1f6", "#cfe3d4", "#c0392b"
# lines for what is predicted: it must not look like what is measured
HATCH = (
    '<svg width="0" height="0" style="position:absolute"><defs><pattern id="hatch" width="6" height="6" '
    'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" fill="#e6edfa"/>'
    '<rect width="2" height="6" fill="#8fb0e8"/></pattern></defs></svg>'
)


def bar(begin: float, end: float, top: float, colour: str = BLUE, hint: str = "") -> str:
    """A rectangle from `begin` to `end` on an axis from 0 to `top`."""
    x, width = _percent(begin, top), _percent(end - begin, top)
    title = f"<title>{escape(hint)}</title>" if hint else ""
    return f'<rect x="{x}" width="{width}" y="12%" height="76%" rx="2" fill="{colour}">{title}</rect>'


def spread(rate: dict[str, float], top: float) -> str:
    """A whisker from the slowest to the fastest round."""
    low, high = _percent(rate["low"], top), _percent(rate["high"], top)
    return f'<line x1="{low}" x2="{high}" y1="50%" y2="50%" stroke="#10254f" stroke-width="2"/>'


def mark(value: float, top: float, colour: str = RED, hint: str = "") -> str:
    """A vertical line."""
    x = _percent(value, top)
    line = f'<line x1="{x}" x2="{x}" y1="-16%" y2="116%" stroke="{colour}" stroke-width="1.5" stroke-dasharray="3 2">'
    return f"{line}<title>{escape(hint)}</title></line>"


def track() -> str:
    """The empty axis behind a bar."""
    return f'<rect width="100%" y="12%" height="76%" rx="2" fill="{TRACK}"/>'


def chart(rows: Iterable[tuple[str, str, str]], axis: dict[str, float] | None = None, top: float = 1.0) -> str:
    """Rows of (label, SVG shapes, value as HTML). axis: texts below, at their values of 0 to `top`."""
    cells = "".join(
        f'<span>{escape(label)}</span><svg role="img" aria-label="{escape(label)}">{shapes}</svg>'
        f'<span class="value">{value}</span>'
        for label, shapes, value in rows
    )
    texts = "".join(f'<span style="left:{_percent(at, top)}">{escape(t)}</span>' for t, at in (axis or {}).items())
    return f'<div class="chart">{cells}{f"<div class=axis>{texts}</div>" if texts else ""}</div>'


def legend(colours: dict[str, str]) -> str:
    items = "".join(
        f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in colours.items()
    )
    return f'<p class="legend">{items}</p>'


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = ["".join(f"<th>{escape(str(cell))}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def _percent(value: float, top: float) -> str:
    return f"{100 * value / top:.3f}%"
