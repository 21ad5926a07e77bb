"""Bars with their spread, as SVG that suits light and dark pages. Values in, text out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.measure import Summary

_WIDTH, _LABEL, _VALUE = 860, 190, 130
_BAR, _GAP, _HEAD = 18, 6, 30

_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 } .group { font-weight: 600; font-size: 12px } .small { fill: #59636e }
.ours { fill: #2f6fd0 } .theirs { fill: #b4bcc6 }
.spread { stroke: #1f2328; stroke-width: 1.2 } .grid { stroke: #d1d9e0 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1 }
  .ours { fill: #4c8dee } .theirs { fill: #59636e } .spread { stroke: #f0f6fc } .grid { stroke: #3d444d }
}"""


@dataclass(frozen=True)
class Bar:
    """One contender."""

    label: str
    summary: Summary
    ours: bool


@dataclass(frozen=True)
class Group:
    """Those that are compared with each other."""

    title: str
    bars: tuple[Bar, ...]


def draw(title: str, unit: str, groups: Sequence[Group]) -> str:
    """A chart: each bar is a median, the line on it goes from the lower to the upper quartile."""
    top = max((bar.summary.high for group in groups for bar in group.bars), default=1.0) or 1.0
    step = _step(top)
    end = step * math.ceil(top / step)
    room = _WIDTH - _LABEL - _VALUE
    y, body = _HEAD, list[str]()
    for group in groups:
        y += 20
        body.append(f'<text class="group" x="0" y="{y - 6}">{escape(group.title)}</text>')
        for bar in group.bars:
            body += _bar(bar, y, room / end, unit)
            y += _BAR + _GAP
        y += 6
    height = y + 24
    grid = []
    for number in range(round(end / step) + 1):
        x = _LABEL + room * number * step / end
        grid.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_HEAD}" y2="{y}"/>')
        grid.append(
            f'<text class="small" x="{x:.1f}" y="{y + 16}" text-anchor="middle">{number * step:g}</text>'
        )
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        f'<text class="title" x="0" y="16">{escape(title)}, {unit}</text>',
        *grid, *body, "</svg>\n",
    ])  # fmt: skip


def _bar(bar: Bar, y: int, scale: float, unit: str) -> list[str]:
    found = bar.summary
    kind = "ours" if bar.ours else "theirs"
    middle, width = y + _BAR / 2, found.median * scale
    low, high = _LABEL + found.low * scale, _LABEL + found.high * scale
    base = y + 13
    return [
        f'<text x="{_LABEL - 8}" y="{base}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{kind}" x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}"/>',
        f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{max(_LABEL + width, high) + 8:.1f}" y="{base}">{short(found.median)} {unit}</text>',
    ]


def short(value: float) -> str:
    """Three digits that count."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(0, digits)}f}" if digits >= 0 else f"{round(value, digits):,.0f}"


def _step(top: float) -> float:
    """Distance of the lines of a scale that goes to `top`: about five of them, at round numbers."""
    rough = top / 5
    size: float = 10 ** math.floor(math.log10(rough))
    return next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
