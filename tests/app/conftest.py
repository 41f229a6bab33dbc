"""Both loaders of settings: pydantic's, and the one that needs nothing."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(params=["pydantic", "alone"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Settings are loaded with pydantic, then as where it is not installed."""
    if request.param == "alone":
        monkeypatch.setitem(sys.modules, "smtpd_core.app.validation", None)
    else:
        pytest.importorskip("pydantic")
    return str(request.param)
