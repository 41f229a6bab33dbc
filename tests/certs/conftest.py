"""Certificates that most tests here use; made once per session, keys are never written."""

from __future__ import annotations

import pytest

from certs.files import Pair
from certs.issue import Wish, authority, issue


@pytest.fixture(scope="session")
def root() -> Pair:
    return authority("Test Root")


@pytest.fixture(scope="session")
def between(root: Pair) -> Pair:
    """An authority under the root."""
    return authority("Test Authority", parent=root, path_length=0)


@pytest.fixture(scope="session")
def leaf(between: Pair) -> Pair:
    return issue(Wish(("mx.test", "*.mail.test", "127.0.0.1")), between)
