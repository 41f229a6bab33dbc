"""A draft keeps content byte-exact, in memory and in a file, and lets go of both."""

import os
from pathlib import Path

import pytest

from smtpd_core.draft import MEMORY_LIMIT, Draft, new_id


@pytest.mark.parametrize("size", [0, 1, MEMORY_LIMIT, MEMORY_LIMIT + 1, 3 * MEMORY_LIMIT])
def test_content_is_byte_exact_whatever_its_size(size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    draft = Draft(str(tmp_path))
    for at in range(0, size, 50_000):
        draft.append(content[at : at + 50_000])
    assert draft.size == size
    assert b"".join(draft.chunks()) == content
    with draft.open() as file:
        file.seek(size // 2)
        assert file.read() == content[size // 2 :]
    assert (draft.content is None) == (size > MEMORY_LIMIT)
    assert list(tmp_path.iterdir()) == []
    draft.close()
    draft.close()


def test_ids_sort_by_time_and_differ_within_one_instant() -> None:
    assert new_id(1_000.0) < new_id(1_000.002) < new_id(2_000_000_000.0)
    assert len({new_id(5.0) for _ in range(500)}) == 500
