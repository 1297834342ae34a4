"""Is a dataset consistent on a real ext4 file system after a power cut at any step?

The image of a mounted ext4 contains the writes that the kernel has done so far. Mounting a copy of it shows the state
that the machine would find after a power cut. ext4 guarantees more order than POSIX, so test_power_cut.py is stricter.
"""

from __future__ import annotations

import contextlib
import gc
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mx8shards.disk import operations
from tests.crash.scenarios import BY_NAME, Expectation, Scenario

ExpectationOf = Callable[[Scenario], Expectation]


def sh(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def mounted(image: Path, where: Path) -> Iterator[Path]:
    """Mount an image during the block."""
    where.mkdir(exist_ok=True)
    sh("mount", "-o", "loop", image, where)
    try:
        yield where
    finally:
        gc.collect()  # files that exceptions keep open would keep it busy
        sh("umount", where)


@pytest.fixture
def image(scratch: Path) -> Path:
    """An empty ext4 in a file."""
    path = scratch / "image"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    try:
        sh("mkfs.ext4", "-q", path)
        with mounted(path, scratch / "trial"):
            pass
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no ext4 can be mounted here: {getattr(error, 'stderr', error)}")
    return path


def copies_at_steps(expectation: Expectation, image: Path, stride: int) -> list[Path]:
    """Copy the image before every `stride`-th step of the scenario, and after the last one."""
    copies: list[Path] = []
    count = 0
    lock = threading.Lock()

    def before(_name: str, _arguments: tuple[Any, ...]) -> None:
        nonlocal count
        with lock:
            if count % stride == 0:
                copies.append(Path(shutil.copyfile(image, image.with_name(f"image{count:03}"))))
            count += 1

    with mounted(image, image.with_name("first")) as disk:
        shutil.copytree(expectation.prepared, disk / "place")
        sh("sync", "-f", disk)
        real, operations.before = operations.before, before
        try:
            expectation.scenario.act(disk / "place")
        finally:
            operations.before = real
        copies.append(Path(shutil.copyfile(image, image.with_name("image-at-last"))))
    return copies


def look_at_copies(expectation: Expectation, image: Path, stride: int) -> tuple[int, int]:
    """Check every copy before and after the next publication. Returns how many had the old and the new state."""
    new = old = 0
    copies = copies_at_steps(expectation, image, stride)
    for copy in copies:
        with mounted(copy, copy.with_name("second")) as disk:
            if expectation.check(disk / "place", image.with_name("cache")):
                new += 1
            else:
                old += 1
                assert copy is not copies[-1], "what was published is gone"
            expectation.finish(disk / "place")
        copy.unlink()
    return old, new


def test_ext4_images_copied_at_some_steps_hold_the_old_or_the_new_state(
    expectation_of: ExpectationOf, image: Path
) -> None:
    old, new = look_at_copies(expectation_of(BY_NAME["overwrite"]), image, 12)
    assert old > 0
    assert new > 0


@pytest.mark.hunt
@pytest.mark.parametrize(
    "name", ["create", "append", "append to a foreign dataset", "overwrite", "merge", "merge and move", "gc", "seal"]
)
def test_ext4_images_copied_at_every_step_hold_the_old_or_the_new_state(
    name: str, expectation_of: ExpectationOf, image: Path
) -> None:
    print(name, look_at_copies(expectation_of(BY_NAME[name]), image, 1))
