"""A kill can't see a missing sync. Here every write that was not synced may be lost, and all promises must hold."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from relay.spool import Spool
from smtpd_core.threads import Mailbox, Ticket
from tests.support.power import RecordingDisk
from tests.support.spooling import ENVELOPE, draft, imported

SEEDS = range(12)


class Unlucky(RecordingDisk):
    """Some syncs of segments fail."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        super().__init__(folder)
        self._chance = chance
        self.fails = False

    def sync(self, descriptor: int) -> None:
        if self.fails and self._chance.random() < 0.2:
            raise OSError(errno.EIO, "I/O error")
        super().sync(descriptor)


@pytest.mark.parametrize("fails", [False, True], ids=["disk is good", "syncs fail"])
@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_power_cut_at_any_moment_all_that_was_promised_is_there(seed: int, fails: bool, tmp_path: Path) -> None:
    chance = random.Random(seed)
    disk = Unlucky(tmp_path / "live", random.Random(seed))
    spool = Spool(tmp_path / "live" / "spool", disk=disk, segment_size=20_000)
    disk.fails = fails
    promised: dict[str, int] = {}  # id: the moment from which on it must survive
    refused: set[str] = set()
    contents: dict[str, bytes] = {}
    arrived: Mailbox[None] = Mailbox()

    def heard(id: str, ticket: Ticket) -> None:
        if ticket.outcome is None:
            promised[id] = disk.moment()
        else:
            refused.add(id)
        arrived.poke()

    for number in range(40):
        id = f"M{number}"
        size = 300_000 if chance.random() < 0.1 else chance.randint(0, 3000)
        contents[id] = chance.randbytes(size)
        ticket = spool.promise(draft(spool, contents[id], id), ENVELOPE)
        ticket.watch(lambda one, id=id: heard(id, one))
        while chance.random() < 0.5 and len(promised) + len(refused) <= number:
            arrived.wait(10)
    assert spool.stop(20)
    assert len(promised) + len(refused) == 40
    assert bool(refused) <= fails
    for number in sorted(chance.sample(range(1, len(disk.images) + 1), 12)):
        folder = tmp_path / f"cut-{number}"
        (folder / "spool").mkdir(parents=True)
        disk.images[number - 1].after_power_cut(chance, folder)
        found = imported(folder / "spool")
        due = {id for id, moment in promised.items() if moment <= number}
        assert due <= set(found), f"seed {seed}, cut after step {number} of {len(disk.images)}"
        for id, (_, content) in found.items():
            assert content == contents[id], f"seed {seed}: {id} is not what was sent"
