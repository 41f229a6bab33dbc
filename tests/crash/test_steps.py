"""The short form of `python -m tests.crash.steps`: killed or failing at some of its steps, an outbox keeps its word."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="every life is a forked child")
def test_an_outbox_killed_or_failing_at_a_step_loses_nothing_and_delivers_nothing_twice() -> None:
    seed = random.randrange(1 << 30)
    words = [sys.executable, "-m", "tests.crash.steps", "--every", "12", "--seed", str(seed)]
    told = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stdout + told.stderr[-2000:]
