"""Bars as SVG, by hand: one group a workload, each bar relative to the fastest of its group."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

LABEL, WIDTH, ROW = 190, 420, 18
COLOURS = ("#1f6f8b", "#99a8b2", "#c7b198", "#7b8d6f", "#b5838d", "#6d6875")


def bars(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """An SVG document of the rates."""
    parts, y = [], 10
    for workload, targets in results.items():
        parts.append(f'<text x="4" y="{y + 13}" font-weight="bold">{escape(workload)}</text>')
        y += ROW
        best = max((one["rate"] for one in targets.values()), default=1.0)
        for n, (name, one) in enumerate(targets.items()):
            width = WIDTH * one["rate"] / best
            parts.append(f'<text x="16" y="{y + 13}">{escape(name)}</text>')
            parts.append(
                f'<rect x="{LABEL}" y="{y + 2}" width="{width:.0f}" height="{ROW - 4}" '
                f'fill="{COLOURS[n % len(COLOURS)]}"/>'
            )
            parts.append(f'<text x="{LABEL + width + 6:.0f}" y="{y + 13}">{one["rate"]:.0f}</text>')
            y += ROW
        y += ROW // 2
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + 90}" height="{y}"'
    return "\n".join([head + ' font-family="sans-serif" font-size="12">', *parts, "</svg>"]) + "\n"
