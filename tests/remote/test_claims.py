"""How long does a job wait for a file that another job fetches?"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from mx8shards.remote import fetching


def test_a_holder_to_whom_bytes_come_is_waited_for_beyond_the_timeout(tmp_path: Path) -> None:
    with ExitStack() as holder:
        claim = holder.enter_context(fetching.claimed(tmp_path, "a.mds", 1.0))
        file = holder.enter_context(claim.draft().open("wb", buffering=0))
        looks = 0

        def as_time_goes_on() -> bool:
            nonlocal looks
            looks += 1
            file.write(bytes(2 << 20))
            if looks == 10:
                holder.close()
            return False

        with fetching.claimed(tmp_path, "a.mds", 0.001, as_time_goes_on):
            assert looks == 10


@pytest.mark.parametrize("size", [0, 1000])
def test_a_holder_to_whom_little_comes_is_waited_for_until_the_timeout(tmp_path: Path, size: int) -> None:
    with ExitStack() as holder:
        claim = holder.enter_context(fetching.claimed(tmp_path, "a.mds", 1.0))
        file = holder.enter_context(claim.draft().open("wb", buffering=0))

        def as_time_goes_on() -> bool:
            file.write(bytes(size))
            return False

        with pytest.raises(BlockingIOError), fetching.claimed(tmp_path, "a.mds", 0.05, as_time_goes_on):
            pass
