"""When to try again, to warn and to give up; and how wide a window is."""

from __future__ import annotations

from itertools import pairwise

import pytest

from relay.__main__ import main
from relay.retry import RetryPolicy, is_time_to_warn, next_attempt, schedule
from relay.window import Window

POLICY = RetryPolicy((300.0, 600.0, 1200.0), expire=7200.0, delay_warning=3600.0, jitter=0.1)


@pytest.mark.parametrize(("tries", "wait"), [(1, 300), (2, 600), (3, 1200), (4, 1200), (50, 1200)])
def test_waits_grow_and_the_last_repeats(tries: int, wait: float) -> None:
    assert next_attempt(POLICY, tries, 0.0, 100.0, 0.0) == 100 + wait
    assert next_attempt(POLICY, tries, 0.0, 100.0, 1.0) == pytest.approx(100 + wait * 1.1)


@pytest.mark.parametrize(
    ("schedule", "waits"),
    [((3600.0, 7200.0), [300, 300, 300, 7200]), ((60.0, 600.0, 3600.0), [60, 300, 300, 3600])],
)
def test_a_host_that_greylists_is_asked_again_soon(schedule: tuple[float, ...], waits: list[float]) -> None:
    policy = RetryPolicy(schedule, jitter=0.0)
    assert [next_attempt(policy, tries, 0.0, 0.0, 0.0, True) for tries in (1, 2, 3, 4)] == waits
    assert next_attempt(policy, 1, 0.0, 0.0, 0.0) == schedule[0]


def test_the_last_attempt_is_at_the_moment_of_expiry_and_none_follows() -> None:
    assert next_attempt(POLICY, 9, 0.0, 7000.0, 0.0) == 7200
    assert next_attempt(POLICY, 10, 0.0, 7200.0, 0.0) is None
    assert schedule(POLICY)[-1] == 7200


def test_the_warning_falls_on_the_first_attempt_after_its_time() -> None:
    moments = schedule(POLICY)
    warned = [at for before, at in pairwise([0.0, *moments]) if is_time_to_warn(POLICY, before, 0.0, at)]
    assert warned == [next(at for at in moments if at >= 3600)]
    # After a long rest the first attempt is far behind its time, and is told all the same.
    assert is_time_to_warn(POLICY, 600.0, 0.0, 7000.0)
    never = RetryPolicy(delay_warning=0.0)
    assert not any(is_time_to_warn(never, 0.0, 0.0, at) for at in schedule(never))


@pytest.mark.parametrize(
    "wrong",
    [
        {"schedule": ()},
        {"schedule": (0.0,)},
        {"schedule": (float("nan"),)},
        {"expire": 0.0},
        {"expire": float("nan")},
        {"expire": float("inf")},
        {"jitter": 2.0},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


def test_the_schedule_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "--retry", "5m,10m", "--expire", "1h", "--delay-warning", "20m"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[1].startswith("attempt   2  after 0d 00:05:00")
    assert "warned" in told[3] and "given up" in told[-2]
    assert main(["schedule", "--retry", "soon"]) == 2


def test_a_window_grows_with_success_and_shrinks_with_trouble() -> None:
    window = Window(most=20)
    assert window.room(0.0) == 5
    for _ in range(200):
        window.went_well()
    assert window.room(0.0) == 20
    window.had_trouble(0.0, "slow")
    assert window.room(0.0) == 10


def test_a_window_closes_after_troubles_in_a_row_and_then_one_probe_is_let_through() -> None:
    window = Window()
    for _ in range(3):
        window.had_trouble(100.0, "no answer")
    assert window.is_closed(100.0) and window.room(159.0) == 0
    assert window.room(161.0) == 1
    window.busy = 1
    assert window.room(161.0) == 0
    window.busy = 0
    window.had_trouble(161.0, "no answer")
    assert window.room(161.0 + 119) == 0 and window.room(161.0 + 121) == 1
    window.went_well()
    assert window.room(162.0) >= 1 and not window.is_closed(162.0)


def test_a_schedule_of_moments_ends_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "--retry", "0.001s"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1002 and "and so on" in told[-2]
