"""Every example of docs/testing.md passes as a test of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)

pytest_plugins = ["pytester"]


def as_test(example: str) -> str:
    return example if "def test_" in example else "def test_example():\n" + re.sub(r"(?m)^", "    ", example)


def test_each_example_passes_as_it_stands(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(**{f"test_{n}": as_test(example) for n, example in enumerate(EXAMPLES)})
    result = pytester.runpytest_subprocess("-p", "smtpd_core.testing.plugin", "-p", "no:cacheprovider")
    outcomes = result.parseoutcomes()
    assert set(outcomes) == {"passed"}, outcomes
    assert outcomes["passed"] >= sum(max(1, example.count("def test_")) for example in EXAMPLES) >= 12
