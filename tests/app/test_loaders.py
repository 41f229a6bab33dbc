"""The contract of both loaders of settings: the same configurations are refused, with the same words."""

from __future__ import annotations

import random
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from smtpd_core.app import tables
from smtpd_core.app.load import BadSettings, load
from smtpd_core.app.settings import Settings
from tests.app.mutants import EXAMPLES, mutate

ROOT = Path(__file__).parents[2]

# What the file says, the key that is named, and what is said of it.
BAD = (
    ("hostname = 5", "hostname", "expected one line of text in quotes, not 5"),
    ('hostname = "two\\nlines"', "hostname", "expected one line of text"),
    ("hostnme = 'a'", "hostnme", "unknown setting; did you mean hostname?"),
    ("nothing-like-it = 1", "nothing-like-it", "unknown setting"),
    ("[threads]\nmaxx = 3", "threads.maxx", "did you mean max?"),
    ("[threads]\nmax = '3'", "threads.max", "expected a whole number, 0 or more, not '3'"),
    ("[threads]\nmax = true", "threads.max", "expected a whole number"),
    ("[threads]\nmax = 3.0", "threads.max", "expected a whole number"),
    ("[threads]\nmax = -1", "threads.max", "expected a whole number"),
    ("[threads]\nmax = 99999999999999999999", "threads.max", "expected a whole number"),
    ("[threads]\npin = 1", "threads.pin", "expected true or false, not 1"),
    ("threads = 4", "threads", "expected a table of settings, not 4"),
    ("[[threads]]\nmax = 4", "threads", "expected a table of settings, not [{'max': 4}]"),
    ("listener = 'mx'", "listener", "expected [[listener]] tables, not 'mx'"),
    ("listener = ['mx']", "listener[1]", "expected a table of settings, not 'mx'"),
    ("[[listener]]\n[[listener]]\nauht = 'off'", "listener[2].auht", "did you mean auth?"),
    (
        "[[listener]]\nservice = 'smtp'",
        "listener[1].service",
        "'smtp' is none of mx, submission, lmtp; did you mean lmtp",
    ),
    ("[listener]\ntls = 'explicit'", "listener.tls", "did you mean implicit?"),
    ("[[listener]]\nwithout = ['DSN', 5]", "listener[1].without[2]", "expected one line of text in quotes, not 5"),
    ("[[listener]]\nwithout = 5", "listener[1].without", "expected one line of text in quotes, not 5"),
    ("[limits]\nmax_errors = 1\nmax-errors = 2", "limits.max-errors", "given twice"),
    ("[limits]\nmax-message-size = '5 bananas'", "limits.max-message-size", 'like "64KiB"'),
    ("[limits.timeouts]\ncommand = '5 minutes'", "limits.timeouts.command", 'like "30s", "5m"'),
    ("[limits.timeouts]\ncommand = 2030-01-01", "limits.timeouts.command", "expected seconds or a duration"),
    ("[limits.timeouts]\ncommand = nan", "limits.timeouts.command", "out of range"),
    ("[limits.timeouts]\ncomand = 5", "limits.timeouts.comand", "did you mean command?"),
    ("[[tls.host]]\nnam = 'a'", "tls.host[1].nam", "did you mean name?"),
    ("[tls]\nhost = 'a'", "tls.host", "expected [[tls.host]] tables"),
    ("domains = 'a.test'", "domains", "expected a table, not 'a.test'"),
    ("[domains]\n'a.test' = 'maildir:x'", 'domains."a.test"', "expected a table of settings"),
    ("[domains.'a.test']\nuser = 'any'", 'domains."a.test".user', "did you mean users?"),
    ("[domains.'a.test'.aliases]\nann = 5", 'domains."a.test".aliases.ann', "expected one line of text"),
    ("[domains.'a.test'.aliases]\nann = ['b', []]", 'domains."a.test".aliases.ann[2]', "expected one line of text"),
    ("[relay]\nretry = ['5m', 'soon']", "relay.retry[2]", "expected seconds or a duration"),
    ("[relay.route.'a.test']\nprot = 26", 'relay.route."a.test".prot', "did you mean port?"),
    ("[log]\nformat = 'jsn'", "log.format", "'jsn' is none of text, json; did you mean json?"),
)


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(("text", "key", "said"), BAD, ids=[key for _, key, _ in BAD])
def test_a_bad_configuration_is_refused_with_file_and_key(tmp_path: Path, text: str, key: str, said: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(BadSettings) as caught:
        load(file)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{file}: {key}: ") and said in fault


@pytest.mark.usefixtures("loader")
def test_faults_all_over_a_file_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(
        "hostnme = 1\nlistener = [{ auht = 2 }, { tls = 3 }]\nlimits = { max_errors = 'x', timeouts = 4 }\n"
    )
    with pytest.raises(BadSettings) as caught:
        load(file)
    keys = {fault.removeprefix(f"{file}: ").partition(": ")[0] for fault in caught.value.faults}
    assert keys == {"hostnme", "listener[1].auht", "listener[2].tls", "limits.max_errors", "limits.timeouts"}


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize("value", ['["postgresql://smtpd:hunter2@db"]', '{ url = "hunter2" }', '"hunter2\\n"'])
def test_what_may_hold_a_password_is_never_shown(tmp_path: Path, value: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(f"[accounts]\nstore = {value}\n")
    with pytest.raises(BadSettings) as caught:
        load(file)
    assert caught.value.faults == [f"{file}: accounts.store: expected one line of text in quotes"]


@pytest.mark.parametrize("name", ["catcher.toml", "company.toml"])
def test_whatever_is_in_a_file_both_loaders_find_the_same(name: str) -> None:
    """Mutated starter files: equal settings, or equal faults."""
    validation = pytest.importorskip("smtpd_core.app.validation")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    whole = (EXAMPLES / name).read_bytes()
    refused = 0
    for _ in range(1500):
        try:
            table = tomllib.loads(mutate(whole, dice).decode())
        except (ValueError, RecursionError):
            continue
        (alone, faults), (validated, found) = tables.read(table), validation.read(table)
        assert sorted(map(repr, faults)) == sorted(map(repr, found))
        assert faults or alone == validated
        refused += bool(faults)
    assert refused > 20, "hardly any mutant is a fault, so nothing was compared"


def test_both_loaders_make_seconds_of_a_whole_number() -> None:
    validation = pytest.importorskip("smtpd_core.app.validation")
    table = {"limits": {"timeouts": {"command": 30}}, "relay": {"retry": [60, "5m"]}}
    assert repr(tables.read(table)) == repr(validation.read(table))


def test_the_settings_are_the_plain_dataclasses() -> None:
    validation = pytest.importorskip("smtpd_core.app.validation")
    settings, faults = validation.read({"threads": {"max": 5}, "domains": {"a.test": {"users": "any"}}})
    assert faults == [] and type(settings) is Settings
    assert settings == tables.read({"threads": {"max": 5}, "domains": {"a.test": {"users": "any"}}})[0]


@pytest.mark.parametrize(
    ("words", "is_needed"),
    [("'serve', '--help'", False), ("'reference'", False), ("'check', '--config', 'docs/examples/catcher.toml'", True)],
)
def test_pydantic_is_imported_only_for_a_configuration(words: str, is_needed: bool) -> None:
    """Its import takes longer than a start."""
    pytest.importorskip("pydantic")
    program = f"""
import sys
from smtpd_core.app.cli import main
try:
    main([{words}])
except SystemExit:
    pass
sys.exit("pydantic" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL)
    assert done.returncode == is_needed
