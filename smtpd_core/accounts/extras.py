"""Libraries that come with an extra: loaded when they are first needed, and named in full where they are missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class ExtraMissing(ValueError):
    """A library that the chosen store or mechanism needs is not installed."""


def installed(module: str) -> Any | None:
    """The module, or None where it is not installed. `module` is always a constant of the calling code."""
    try:
        return import_module(module)
    except ImportError:
        return None


def needed(module: str, *, extra: str, purpose: str) -> Any:
    """The module. Raises ExtraMissing with the command that installs it."""
    found = installed(module)
    if found is None:
        raise ExtraMissing(f"{purpose} needs {module.partition('.')[0]}: pip install 'smtpd_core[{extra}]'")
    return found
