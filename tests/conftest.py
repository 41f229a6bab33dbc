"""What every test may rely on: the debian marker, no warnings swallowed, its own umask and loggers."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator

import pytest

from tests.support.unpacked import ALL as UNPACKED

# By its module's name: where the project is installed the entry point of the same name has brought it already.
pytest_plugins = ["smtpd_core.testing.plugin"]

_LOGGERS = ("smtpd_core", "relay", "certs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave a test out where a program of its debian marker is missing; under CI nothing is left out."""
    if os.environ.get("CI") == "true":
        return
    for item in items:
        for marker in item.iter_markers("debian"):
            missing = [program for program in marker.args if not _is_here(program)]
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)} from Debian's packages"))


def _is_here(program: str) -> bool:
    # Some exclude each other as packages: python -m tests.support.unpacked
    for one in UNPACKED:
        if one.name == program:
            return one.program() is not None
    # Servers of Debian's packages live where an ordinary user's PATH does not lead.
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/lib/postfix/sbin") is not None


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Each test begins with the same one: a daemon that runs within a test sets its own for the whole process."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Each test begins with the same ones: a daemon that runs within a test leads them to its own log, and what is
    logged later at its level would be kept by pytest, where a test counts the objects of the process."""
    before = [(one, one.level, one.propagate, one.handlers[:]) for one in map(logging.getLogger, _LOGGERS)]
    yield
    for logger, level, propagates, handlers in before:
        logger.setLevel(level)
        logger.propagate = propagates
        logger.handlers[:] = handlers
