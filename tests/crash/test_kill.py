"""The short form of `make crash`: a server killed under load keeps its word."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.crash.kill import run, several_processes


@pytest.mark.parametrize("processes", [1, 2])
def test_what_got_its_250_is_delivered_and_what_was_refused_is_not(processes: int, tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    options = several_processes(tmp_path, processes) if processes > 1 else []
    verdict = run(tmp_path / "state", rounds=3, seed=seed, options=options)
    assert verdict.is_good, f"seed {seed}: {verdict}"
    assert verdict.promised > 0
