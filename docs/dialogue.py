"""Draws the moves of the dialogue from the table of rules: python docs/dialogue.py > docs/dialogue.svg (make diagram).

Only the places of the phases are chosen here; which arrows there are, and their words, come from RULES. Moves that no
verb makes (the greeting, the end of content, a finished login or handshake) stand below, as they do under the table.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from smtpd_core.wire.rules import EVERYWHERE, RULES, Gate, Phase

WIDTH, HEIGHT = 1040, 820
BOX = (150, 44)

PLACES = {
    Phase.GREETING: (480, 50),
    Phase.CONNECTED: (480, 160),
    Phase.READY: (480, 300),
    Phase.SENDER: (480, 440),
    Phase.RECIPIENTS: (480, 580),
    Phase.CONTENT: (340, 720),
    Phase.CHUNKS: (620, 720),
    Phase.LOGIN: (860, 300),
    Phase.UPGRADE: (860, 160),
    Phase.ENDED: (860, 50),
}

# How far an arrow bends to its left, in its own direction; straight where nothing is said.
BENDS = {
    (Phase.READY, Phase.CONNECTED): 220,
    (Phase.SENDER, Phase.READY): -230,
    (Phase.RECIPIENTS, Phase.READY): -390,
    (Phase.CONTENT, Phase.READY): 400,
    (Phase.CHUNKS, Phase.READY): -520,
    (Phase.LOGIN, Phase.READY): 60,
    (Phase.READY, Phase.LOGIN): 40,
    (Phase.READY, Phase.UPGRADE): 20,
}

# Moves that no verb makes, as they stand under the table.
OTHERS = (
    (Phase.GREETING, Phase.CONNECTED, "220"),
    (Phase.GREETING, Phase.ENDED, "refused: 554, 421"),
    (Phase.CONTENT, Phase.READY, "CRLF.CRLF"),
    (Phase.CHUNKS, Phase.READY, "LAST"),
    (Phase.READY, Phase.LOGIN, "AUTH"),
    (Phase.LOGIN, Phase.READY, "235, 535, *"),
    (Phase.UPGRADE, Phase.CONNECTED, "handshake; all is forgotten"),
)


def moves() -> dict[tuple[Phase, Phase], list[str]]:
    """The arrows and their words."""
    found: dict[tuple[Phase, Phase], list[str]] = defaultdict(list)
    for rule in RULES:
        if not rule.implemented or rule.then is None or rule.then is Phase.ENDED:
            continue
        for start in sorted(rule.legal):
            if rule.verb == "RSET" and start in (Phase.CONNECTED, Phase.READY):
                continue  # nothing to go back to
            found[start, rule.then].append(rule.verb)
    for start, end, word in OTHERS:
        found[start, end].append(word)
    return found


def everywhere() -> list[str]:
    """What the picture says in words."""
    rules = [rule for rule in RULES if rule.implemented and rule.legal == EVERYWHERE]
    stay = " ".join(rule.verb for rule in rules if rule.then is None)
    last = " ".join(rule.verb for rule in rules if rule.then is Phase.ENDED)
    lines = [f"In every phase that reads commands: {stay} (the phase stays), {last} (to ENDED)"]
    some = [rule for rule in RULES if rule.implemented and rule.then is None and rule.legal != EVERYWHERE]
    for rule in some:
        if rule.verb != "AUTH":
            lines.append(f"In {', '.join(phase.name for phase in sorted(rule.legal))}: {rule.verb} (the phase stays)")
    for gate in Gate:
        lines.append(f"{gate.value}: {' '.join(rule.verb for rule in RULES if gate in rule.gates)}")
    unserved = " ".join(rule.verb for rule in RULES if not rule.implemented)
    lines.append(f"Known and answered 502 5.5.1: {unserved}. A verb in any other phase: 503 5.5.1.")
    lines.append("CRLF.CRLF, or a chunk marked LAST, ends the transaction whatever the verdict.")
    return lines


def edge_of(phase: Phase, towards: tuple[float, float]) -> tuple[float, float]:
    """Where a line from the middle of a box to a point leaves it."""
    x, y = PLACES[phase]
    dx, dy = towards[0] - x, towards[1] - y
    scale = min(BOX[0] / 2 / abs(dx) if dx else 9e9, BOX[1] / 2 / abs(dy) if dy else 9e9)
    return x + dx * scale, y + dy * scale


def arrow(start: Phase, end: Phase, words: list[str]) -> str:
    (x0, y0), (x1, y1) = PLACES[start], PLACES[end]
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    if not length:
        x, y = x0 - BOX[0] / 2, y0
        loop = f'<path d="M{x:.0f},{y - 12:.0f} c-46,-20 -46,44 0,24" class="move"/>'
        text = escape(" ".join(words))
        return f'{loop}\n<text x="{x - 40:.0f}" y="{y + 4:.0f}" text-anchor="end" class="word">{text}</text>'
    bend = BENDS.get((start, end), 0)
    mx, my = (x0 + x1) / 2 + (y1 - y0) / length * bend, (y0 + y1) / 2 - (x1 - x0) / length * bend
    (ax, ay), (bx, by) = edge_of(start, (mx, my)), edge_of(end, (mx, my))
    lx, ly = (ax + 2 * mx + bx) / 4, (ay + 2 * my + by) / 4
    if abs(bend) > 200:  # a way around: its words stand outside
        anchor, shift = ("end", -6) if lx < PLACES[Phase.READY][0] else ("start", 6)
    else:
        anchor, shift = ("start", 8) if x0 == x1 else ("middle", 0)
    line = f'<path d="M{ax:.0f},{ay:.0f} Q{mx:.0f},{my:.0f} {bx:.0f},{by:.0f}" class="move"/>'
    text = escape(" ".join(words))
    return f'{line}\n<text x="{lx + shift:.0f}" y="{ly - 4:.0f}" text-anchor="{anchor}" class="word">{text}</text>'


def box(phase: Phase) -> str:
    x, y = PLACES[phase]
    corner = f'x="{x - BOX[0] / 2:.0f}" y="{y - BOX[1] / 2:.0f}" width="{BOX[0]}" height="{BOX[1]}"'
    return f'<rect {corner} rx="8"/>\n<text x="{x}" y="{y + 5}" text-anchor="middle" class="phase">{phase.name}</text>'


STYLE = (
    "rect{fill:#f4f6f8;stroke:#345;stroke-width:1.5}text{font:12px sans-serif;fill:#123}"
    ".phase{font-weight:bold;font-size:14px}.move{fill:none;stroke:#567;stroke-width:1.3;marker-end:url(#tip)}"
    ".word{paint-order:stroke;stroke:#fff;stroke-width:4px}"
)


def drawing() -> str:
    """The whole picture."""
    notes = everywhere()
    height = HEIGHT + 18 * len(notes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        "<title>The moves of an SMTP dialogue, made from smtpd_core/wire/rules.py</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0L10,5L0,10z" fill="#567"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" style="fill:#fff;stroke:none"/>',
        *(arrow(start, end, words) for (start, end), words in sorted(moves().items())),
        *(box(phase) for phase in Phase),
        *(f'<text x="30" y="{HEIGHT - 10 + 18 * n}">{escape(line)}</text>' for n, line in enumerate(notes)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(drawing())
