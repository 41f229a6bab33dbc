"""Every example of docs/testing.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_passes_as_a_test_of_its_own(example: str, pytester: pytest.Pytester) -> None:
    body = example if "def test_" in example else "def test_example():\n" + re.sub(r"(?m)^", "    ", example)
    pytester.makepyfile(body)
    result = pytester.runpytest_inprocess("-p", "smtpd_core.testing.plugin", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    assert len(EXAMPLES) >= 3
