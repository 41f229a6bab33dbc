"""The rates as SVG, by hand: one group a workload, each bar relative to the fastest of its group."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

LABEL, WIDTH, ROW, FIGURE = 200, 400, 18, 400
OWN, PEER, INK, FAINT = "#1f6f8b", "#b9c4cc", "#1c2226", "#66727a"


def bars(results: Mapping[str, Any]) -> str:
    """An SVG document of every workload that has a rate. Ours are dark."""
    parts = [
        text(8, 22, "Messages or megabytes per second, by workload", bold=True, size=15),
        text(8, 40, f"{results['machine']}, {results['date']}", colour=FAINT),
    ]
    y = 54
    for name, found in results["workloads"].items():
        rates = {target: one["rate"] for target, one in found["medians"].items() if "rate" in one}
        if not rates:
            continue
        y += 10
        parts.append(text(8, y + 13, f"{name}: {found['what']}", bold=True))
        y += ROW + 2
        best = max(rates.values())
        for target, rate in rates.items():
            width = WIDTH * rate / best
            cpu = found["medians"][target].get("cpu")
            figure = f"{rate:,.0f} {found['unit']}".replace(",", "\u202f") + (f", {cpu:.3g} CPU s/1000" if cpu else "")
            if target in found["generator_was_the_limit"]:
                figure += " (load generator's limit)"
            parts.append(text(LABEL - 8, y + 13, target, end=True))
            parts.append(
                f'<rect x="{LABEL}" y="{y + 2}" width="{max(width, 1):.0f}" height="{ROW - 4}" '
                f'fill="{OWN if target.startswith("smtpd_core") else PEER}"/>'
            )
            parts.append(text(LABEL + width + 6, y + 13, figure, colour=FAINT))
            y += ROW
    return document(LABEL + WIDTH + FIGURE, y + 12, parts)


def text(
    x: float,
    y: float,
    words: str,
    *,
    bold: bool = False,
    end: bool = False,
    middle: bool = False,
    size: int = 12,
    colour: str = INK,
) -> str:
    more = ' font-weight="bold"' * bold + (f' font-size="{size}"' if size != 12 else "")
    more += ' text-anchor="end"' * end + ' text-anchor="middle"' * middle
    return f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}"{more}>{escape(words)}</text>'


def document(width: int, height: int, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    ground = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([f'{head} font-family="sans-serif" font-size="12">', ground, *parts, "</svg>"]) + "\n"
