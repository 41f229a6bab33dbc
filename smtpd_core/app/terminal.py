"""What is shown on a terminal: tables, a live view and progress bars, by rich (extra `daemon`).

Rule: what goes into a pipe or a file is plain, and is the caller's own lines; so it is where rich is missing, and on a
terminal that can do nothing. Colours heed NO_COLOR.
Thread: main.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from smtpd_core.wire.shown import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

Pair = tuple[str, str]
"""A title and what stands beside it."""

# Work that ends before needs no bar. Seconds; so are the times between two pictures of it, and between plain lines.
PATIENCE, _REDRAW, _PLAIN = 1.0, 0.1, 5.0

_STYLES = {"active": "green", "deferred": "yellow", "held": "magenta", "failed": "red", "expired": "red"}


def console_of(stream: TextIO) -> Console | None:
    """rich's console where the stream is a terminal; None where plain lines are due."""
    if not stream.isatty() or os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bool:
    """A table on standard output; False, and nothing, where plain lines are due. Columns in capitals are numbers."""
    console = console_of(sys.stdout)
    if console is None:
        return False
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name.lower(), justify="right" if name.isupper() else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(cell) for cell in row))
    console.print(table)
    return True


def show_pairs(pairs: Iterable[Pair]) -> bool:
    """Titles, and beside them what may need several lines; False where plain lines are due."""
    console = console_of(sys.stdout)
    if console is not None:
        console.print(_grid(pairs))
    return console is not None


def show_live(pictures: Iterable[Sequence[Pair]]) -> None:
    """Each picture in the place of the one before it; one below the other where that can't be."""
    console = console_of(sys.stdout)
    if console is None:
        for picture in pictures:
            print("\n".join(f"{title:<12}{text}" for title, text in picture), flush=True)
        return
    from rich.live import Live

    with Live(console=console, screen=True, auto_refresh=False) as view:
        for picture in pictures:
            view.update(_grid(picture), refresh=True)


def _grid(pairs: Iterable[Pair]) -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", max_width=32, overflow="fold")
    grid.add_column(overflow="fold")
    for title, text in pairs:
        grid.add_row(_text(title), _text(text))
    return grid


def _text(cell: str) -> Text:
    from rich.text import Text

    return Text(shown(cell), style=_STYLES.get(cell, ""))


class Steps(Protocol):
    """So many steps were made."""

    def __call__(self, count: int = 1) -> None: ...


@contextmanager
def progress(what: str, total: int) -> Iterator[Steps]:
    """Call what this yields after each of `total` steps, or for several; work that takes longer than PATIENCE has a bar
    meanwhile.

    On standard error, and only where that is a terminal: a bar is nothing for a log.
    """
    bar = _Bar(what, total)
    try:
        yield bar.step
    finally:
        bar.end()


class _Bar:
    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._is_wanted = sys.stderr.isatty()
        self._due = time.monotonic() + PATIENCE
        self._drawn: Progress | None = None

    def step(self, count: int = 1) -> None:
        self._done += count
        if self._is_wanted and (now := time.monotonic()) >= self._due:
            self._due = now + (_REDRAW if self._draw() else _PLAIN)

    def end(self) -> None:
        if self._drawn is not None:
            self._drawn.stop()

    def _draw(self) -> bool:
        """False where it was but a line."""
        if self._drawn is None:
            console = console_of(sys.stderr)
            if console is None:
                print(f"{self._what}: {self._done} of {self._total}", file=sys.stderr, flush=True)
                return False
            self._drawn = self._begin(console)
        self._drawn.update(self._drawn.task_ids[0], completed=self._done, refresh=True)
        return True

    def _begin(self, console: Console) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # Lines that are printed meanwhile stand above the bar; into a file they go as ever.
        both = sys.stdout.isatty()
        drawn = Progress(*columns, console=console, transient=True, auto_refresh=False, redirect_stdout=both)
        drawn.add_task(self._what, total=self._total)
        drawn.start()
        return drawn
