"""The short form of `make crash`: a server killed under load keeps its word."""

from __future__ import annotations

import random
from pathlib import Path

from tests.crash.kill import run


def test_what_got_its_250_is_delivered_and_what_was_refused_is_not(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    verdict = run(tmp_path / "state", rounds=4, seed=seed, options=[])
    assert verdict.is_good, f"seed {seed}: {verdict}"
    assert verdict.promised > 0
