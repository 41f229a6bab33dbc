"""The picture of the dialogue is the table's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_diagram_is_current():
    """After a change of RULES: make diagram."""
    drawn = subprocess.run([sys.executable, DOCS / "dialogue.py"], capture_output=True, check=True, text=True).stdout
    assert (DOCS / "dialogue.svg").read_text() == drawn
