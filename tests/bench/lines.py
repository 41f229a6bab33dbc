"""Curves as SVG, by hand: a figure against a size that grows by powers; flat is flat and straight is straight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench.plot import FAINT, INK, OWN, document, text

LEFT, TOP, WIDTH, HEIGHT, RIGHT, BOTTOM = 70, 100, 540, 250, 190, 64
INSET = 26  # the first and the last point stand off the frame
COLOURS = (OWN, "#b4552d", "#6d6875")
GRID = "#e3e8eb"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Plot:
    """`grows` says that the figure grows with the size (both axes are logarithmic); else it should stay as it is."""

    title: str
    bends: str  # what bends the lines: a sentence
    across: str
    up: str
    names: Mapping[float, str]  # the ticks across
    grows: bool = False


def curves(plot: Plot, lines: Mapping[str, Points], machine: str) -> str:
    """An SVG document; every point carries its figure."""
    values = [y for points in lines.values() for _, y in points]
    low, high = (min(values) / 1.5, max(values) * 1.5) if plot.grows else (0.0, max(values) * 1.25)
    across = sorted(plot.names)

    def x_at(x: float) -> float:
        return LEFT + INSET + (WIDTH - 2 * INSET) * math.log(x / across[0]) / math.log(across[-1] / across[0])

    def y_at(y: float) -> float:
        share = math.log(y / low) / math.log(high / low) if plot.grows else y / high
        return TOP + HEIGHT * (1 - share)

    parts = [text(12, 24, plot.title, bold=True, size=15), text(12, 42, plot.bends, colour=INK)]
    parts.append(text(12, 60, machine, colour=FAINT))
    for tick in _ticks(low, high, plot.grows):
        parts.append(f'<path d="M{LEFT} {y_at(tick):.1f}H{LEFT + WIDTH}" stroke="{GRID}"/>')
        parts.append(text(LEFT - 8, y_at(tick) + 4, _short(tick), end=True, colour=FAINT))
    for x, name in plot.names.items():
        parts.append(f'<path d="M{x_at(x):.1f} {TOP}V{TOP + HEIGHT}" stroke="{GRID}"/>')
        parts.append(text(x_at(x), TOP + HEIGHT + 18, name, middle=True, colour=FAINT))
    parts.append(text(LEFT + WIDTH / 2, TOP + HEIGHT + 42, f"{plot.across} (logarithmic)", middle=True))
    parts.append(text(LEFT, TOP - 12, plot.up + " (logarithmic)" * plot.grows))
    for colour, points in zip(COLOURS, lines.values(), strict=False):
        path = "L".join(f"{x_at(x):.1f} {y_at(y):.1f}" for x, y in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y in points:
            parts.append(f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3.5" fill="{colour}"/>')
            under = 18 if _is_lowest(lines, y, x) else -9
            parts.append(text(x_at(x), y_at(y) + under, _short(y), middle=True, size=11, colour=colour))
    end = float("-inf")
    for colour, (name, points) in sorted(zip(COLOURS, lines.items(), strict=False), key=lambda one: -one[1][1][-1][1]):
        end = max(end + 16, y_at(points[-1][1]) + 4)
        parts.append(text(LEFT + WIDTH + 10, end, name, bold=True, colour=colour))
    return document(LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM, parts)


def _is_lowest(lines: Mapping[str, Points], y: float, x: float) -> bool:
    """No line runs below this point and one above it, so its figure goes under it."""
    others = [other for points in lines.values() for at, other in points if at == x]
    return y == min(others) < max(others)


def _ticks(low: float, high: float, grows: bool) -> list[float]:
    if grows:
        found = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
        return found if len(found) > 1 else [low, high]
    step = 10.0 ** math.floor(math.log10(high))
    step = next(one for one in (step, step / 2, step / 5) if high / one >= 3)
    return [step * n for n in range(int(high / step) + 1)]


def _short(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\u202f") if value >= 100 else f"{value:.3g}"
