"""A drawing of numbers that lie far apart: bars on a logarithmic scale, as plain SVG.

It has no background, and its colours follow whether its reader's page is light or dark.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape

Bar = tuple[str, float, bool]  # what it is, how much, and whether it is ours

ROW, LEFT, WIDTH, TOP = 22, 300, 760, 44
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.head { font-weight: 600 }
.bar { fill: #8c959f }
.ours { fill: #0969da }
.line { stroke: #8c959f; stroke-opacity: .35 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .bar { fill: #6e7681 }
  .ours { fill: #58a6ff }
}
"""


def bars(title: str, groups: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """Groups of bars below each other, each with its number behind it."""
    values = [value for _, group in groups for _, value, _ in group] or [1.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 0.01)
    scale = (WIDTH - LEFT - 90) / (high - low)
    rows = sum(len(group) + 2 for _, group in groups)
    height = TOP + rows * ROW
    lines = [
        f'<line class="line" x1="{x:.0f}" x2="{x:.0f}" y1="{TOP - 6}" y2="{height - ROW}"/>'
        for x in (LEFT + step * scale for step in range(high - low + 1))
    ]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<text class="head" x="8" y="20">{escape(title)}</text>',
            *lines,
            *_rows(groups, scale, low),
            "</svg>\n",
        )
    )


def _rows(groups: Sequence[tuple[str, Sequence[Bar]]], scale: float, low: int) -> Iterator[str]:
    y = TOP
    for name, group in groups:
        y += ROW
        yield f'<text class="head" x="8" y="{y}">{escape(name)}</text>'
        for label, value, ours in group:
            y += ROW
            length = max(1.0, (math.log10(value) - low) * scale)
            kind = "ours" if ours else "bar"
            yield f'<text x="16" y="{y}">{escape(label.replace("*", "").replace("`", ""))}</text>'
            yield f'<rect class="{kind}" x="{LEFT}" y="{y - 13}" width="{length:.0f}" height="16"/>'
            yield f'<text x="{LEFT + length + 6:.0f}" y="{y}">{value:,.0f}</text>'
        y += ROW
