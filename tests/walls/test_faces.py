"""The packages' faces: every public name is there, and none is loaded before it is asked for."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

FACES = ("smtpd_core", "smtpd_core.testing")


def homes_for_type_checkers(face: str) -> dict[str, str]:
    """Name to module, as the imports under TYPE_CHECKING say."""
    path = importlib.import_module(face).__file__
    assert path is not None
    return {
        name.name: str(node.module)
        for block in ast.parse(Path(path).read_text()).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }


@pytest.mark.parametrize("face", FACES)
def test_each_public_name_is_what_type_checkers_believe_it_to_be(face: str) -> None:
    package = importlib.import_module(face)
    homes = homes_for_type_checkers(face)
    assert sorted(homes) == sorted(package.__all__)
    for name, home in homes.items():
        assert getattr(package, name) is getattr(importlib.import_module(home), name)


@pytest.mark.parametrize("face", FACES)
def test_a_name_that_is_not_public_is_an_error(face: str) -> None:
    with pytest.raises(AttributeError, match="NoSuchName"):
        importlib.import_module(face).NoSuchName  # noqa: B018


@pytest.mark.parametrize("face", FACES)
def test_all_public_names_can_be_imported_at_once(face: str) -> None:
    names: dict[str, object] = {}
    exec(f"from {face} import *", names)
    assert set(importlib.import_module(face).__all__) <= set(names)


@pytest.mark.parametrize("face", FACES)
def test_the_names_are_seen_before_they_are_loaded(face: str) -> None:
    """dir(), help() and a shell's completion knew none of them."""
    program = f"import {face} as face; print({{*face.__all__}} <= {{*dir(face)}}, 'SmtpServer' in vars(face))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_pytest_loads_no_server_and_no_tls_with_the_plugin() -> None:
    """Every run of pytest, in every project of an environment, imports the plugin."""
    program = "import sys, pytest; had = {*sys.modules}; import smtpd_core.testing.plugin; print(*{*sys.modules} - had)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    ours = {one for one in loaded if one.split(".")[0] in ("smtpd_core", "relay", "certs")}
    assert ours == {"smtpd_core", "smtpd_core.face", "smtpd_core.testing", "smtpd_core.testing.plugin"}
    assert not {"OpenSSL", "cryptography", "dns", "ssl", "smtplib", "asyncio"} & loaded
