"""From text to settings: what is understood, and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpd_core.app.load import BadSettings, load, variables
from smtpd_core.app.settings import Settings
from smtpd_core.app.values import duration, say_duration, say_size, size

pytestmark = pytest.mark.usefixtures("loader")


def loaded(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    file = tmp_path / "smtpd.toml"
    file.write_text(text)
    return load(file, environment)


def faults(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(BadSettings) as caught:
        loaded(tmp_path, text, environment)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(30, 30.0), (1.5, 1.5), ("30s", 30.0), ("5m", 300.0), ("2h", 7200.0), ("5d", 432_000.0), ("1.5h", 5400.0)],
)
def test_durations(text: object, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "expected"), [(1024, 1024), ("1024", 1024), ("64KiB", 65_536), ("50MiB", 52_428_800), ("1GB", 10**9)]
)
def test_sizes(text: object, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5 minutes", "-1", -1, True, None, [], "5mm", "1e9", "99999d", float("nan"), float("inf")]
)
def test_a_bad_duration_says_what_would_be_right(text: object) -> None:
    with pytest.raises(ValueError, match="expected seconds or a duration"):
        duration(text)


def test_values_are_said_as_they_are_written() -> None:
    assert (say_duration(300.0), say_duration(90.0), say_size(52_428_800), say_size(1000)) == (
        "5m",
        "90s",
        "50MiB",
        "1000",
    )


def test_hyphens_and_underscores_are_alike_in_keys_and_values(tmp_path: Path) -> None:
    settings = loaded(tmp_path, '[limits]\nmax-message-size="1MiB"\n[[listener]]\ntls="explicit_require"\nservice="MX"')
    assert settings.limits.max_message_size == 1 << 20
    assert (settings.listener[0].tls, settings.listener[0].service) == ("explicit-require", "mx")


def test_every_fault_is_named_at_once_with_file_and_key(tmp_path: Path) -> None:
    said = faults(tmp_path, 'hostname = 5\n[threads]\nmaxx = 3\n[[listener]]\n[[listener]]\nservice = "smtp"')
    lines = said.splitlines()
    assert [line.startswith(f"{tmp_path}/smtpd.toml: ") for line in lines] == [True] * 3
    assert "hostname: expected one line of text" in lines[0]
    assert "threads.maxx: unknown setting; did you mean max?" in lines[1]
    assert "listener[2].service: 'smtp' is none of mx, submission, lmtp" in lines[2]


def test_a_key_given_in_both_spellings_is_refused(tmp_path: Path) -> None:
    assert "given twice" in faults(tmp_path, "[limits]\nmax_errors = 1\nmax-errors = 2")


def test_what_is_not_toml_says_where(tmp_path: Path) -> None:
    assert "line 2" in faults(tmp_path, "hostname = 'a'\n[threads\n")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"no\.toml: No such file"):
        load(tmp_path / "no.toml")


def test_a_single_value_stands_for_a_list_of_one(tmp_path: Path) -> None:
    settings = loaded(tmp_path, '[domains."a.test"]\nusers = "any"\naliases = { all = ["ann", "bob"], me = "ann" }')
    assert settings.domains["a.test"].users == ("any",)
    assert settings.domains["a.test"].aliases == {"all": ("ann", "bob"), "me": ("ann",)}


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    environment = {
        "SMTPD_CORE_LIMITS_MAX_ERRORS": "7",
        "SMTPD_CORE_LOG_TRANSCRIPT": "true",
        "SMTPD_CORE_RELAY_RETRY": "10s, 5m",
        "PATH": "/bin",
    }
    settings = loaded(tmp_path, "[limits]\nmax-errors = 3", environment)
    assert (settings.limits.max_errors, settings.log.transcript, settings.relay.retry) == (7, True, (10.0, 300.0))


def test_an_unknown_variable_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    said = faults(tmp_path, "", {"SMTPD_CORE_LIMITS_MAX_ERROR": "7"})
    assert (
        said == "environment: SMTPD_CORE_LIMITS_MAX_ERROR: unknown setting; did you mean SMTPD_CORE_LIMITS_MAX_ERRORS?"
    )


def test_a_fault_of_a_variable_names_the_variable(tmp_path: Path) -> None:
    environment = {"SMTPD_CORE_LIMITS_MAX_ERRORS": "many", "SMTPD_CORE_RELAY_RETRY": "5m, soon"}
    lines = faults(tmp_path, "[limits]\nmax-errors = 3", environment).splitlines()
    assert [line.split(":")[:2] for line in sorted(lines)] == [
        ["environment", " SMTPD_CORE_LIMITS_MAX_ERRORS"],
        ["environment", " SMTPD_CORE_RELAY_RETRY"],
    ]


def test_every_variable_leads_to_a_setting() -> None:
    assert {"SMTPD_CORE_HOSTNAME", "SMTPD_CORE_LIMITS_TIMEOUTS_DATA"} <= set(variables())
