"""Under CI no test of accounts is left out for want of a library that the `test` extra or the Makefile should bring."""

from __future__ import annotations

import importlib
import os

import pytest

LIBRARIES = ("argon2", "bcrypt", "passlib", "psycopg", "pymysql", "bonsai", "pamela", "urllib3", "jwt", "spnego")


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="outside CI the tests of a missing library are left out")
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_libraries_of_the_account_stores_are_installed_under_ci(library: str) -> None:
    importlib.import_module(library)
