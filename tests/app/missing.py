"""Programs as they run where a library is not installed."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def without(folder: Path, *libraries: str) -> dict[str, str]:
    """What to put into the environment: in the folder a module stands before each library, which can't be imported."""
    folder.mkdir(exist_ok=True)
    for name in libraries:
        (folder / f"{name}.py").write_text('raise ImportError("not installed")\n')
    return {"PYTHONPATH": f"{folder}:{ROOT}"}
