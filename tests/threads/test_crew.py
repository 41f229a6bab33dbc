"""A crew works in parallel up to its size, survives what jobs raise, and stops within its deadline."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from smtpd_core.threads import Crew, Mailbox


def test_jobs_run_in_parallel_up_to_the_crews_size_and_no_further() -> None:
    crew = Crew("test", 3)
    gate = threading.Event()
    begun: Mailbox[int] = Mailbox()
    ended: Mailbox[int] = Mailbox()

    def job(number: int) -> None:
        begun.put(number)
        gate.wait(10)
        ended.put(number)

    for number in range(10):
        assert crew.submit(lambda number=number: job(number))  # type: ignore[misc]
    seen = []
    while len(seen) < 3:
        seen += begun.wait(10)
    assert begun.wait(0.05) == []
    assert sorted(seen) == [0, 1, 2]
    gate.set()
    done: list[int] = []
    while len(done) < 10:
        done += ended.wait(10)
    assert crew.stop(10)


def test_one_worker_serves_jobs_that_do_not_overlap() -> None:
    crew = Crew("test", 5)
    names: Mailbox[str] = Mailbox()
    for _ in range(5):
        crew.submit(lambda: names.put(threading.current_thread().name))
        first = names.wait(10)
        assert len(first) == 1
        crew.submit(lambda: names.put("again"))
        assert names.wait(10) == ["again"]
    assert crew.stop(10)


def test_a_job_that_raises_does_not_end_its_worker(caplog: pytest.LogCaptureFixture) -> None:
    crew = Crew("test", 1)
    done: Mailbox[str] = Mailbox()
    crew.submit(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    crew.submit(lambda: done.put("later"))
    assert done.wait(10) == ["later"]
    assert "a job of crew test failed" in caplog.text
    assert crew.stop(10)


def test_stop_drops_what_was_not_begun_and_tells_whether_the_rest_ended_in_time() -> None:
    crew = Crew("test", 1)
    gate = threading.Event()
    begun: Mailbox[str] = Mailbox()
    ran: list[str] = []

    def long() -> None:
        begun.put("long")
        gate.wait(10)

    crew.submit(long)
    crew.submit(lambda: ran.append("never"))
    assert begun.wait(10) == ["long"]
    assert not crew.stop(0.05)
    assert not crew.submit(lambda: ran.append("late"))
    gate.set()
    assert crew.stop(10)
    assert ran == []


def test_a_crew_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError):
        Crew("test", 0)


def test_a_job_for_which_no_thread_could_be_started_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The crew counted the thread that never ran for good, and had less room for each."""
    crew = Crew("test", 2)
    ran: Mailbox[str] = Mailbox()

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        for job in ("one", "two", "three"):
            assert crew.submit(partial(ran.put, job))
    assert crew.submit(partial(ran.put, "four"))
    heard: list[str] = []
    while len(heard) < 4 and (more := ran.wait(10)):
        heard += more
    assert sorted(heard) == ["four", "one", "three", "two"]
    assert crew.stop(10)
