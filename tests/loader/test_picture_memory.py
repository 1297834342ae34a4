"""Do decoders stay within the memory budget, and are pictures that need more refused?"""

from __future__ import annotations

import functools
import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mx8shards as mx8
from mx8shards.errors import DecodeError
from mx8shards.kernels import turbo
from mx8shards.media import picture_memory
from mx8shards.media.tiles import tile
from tests.loader.leak_checks import time_limit
from tests.loader.test_pictures import backend as backend
from tests.loader.test_pictures import crops, loader_of, same
from tests.pictures import file_of, jpeg, write
from tests.pixels import picture

SPECS = {
    "small parts": mx8.RandomResizedCrop(32, scale=(0.05, 0.3)),
    "exact": mx8.RandomResizedCrop(32, exact=True),
    "several": mx8.MultiCrop({"image": mx8.RandomResizedCrop(64), "b": mx8.ResizeCrop((90, 20))}),
}


@pytest.fixture(scope="module")
def mixed(place: Path) -> mx8.Dataset:
    """Pictures of very different sizes and formats."""
    files = []
    for i, size in enumerate([(40, 30), (500, 700), (9, 900), (300, 400), (1, 1), (640, 640)]):
        whole = jpeg(picture(*size, i, i % 2 == 0), "420", 95)
        files += [whole, tile(whole), file_of(picture(*size, i, True), "PNG"), jpeg(picture(*size, i, True), "444")]
    return write(place / "mixed", files, size_limit="10mb")


@pytest.fixture(scope="module")
def ordinary(mixed: mx8.Dataset) -> Callable[[str, str], Any]:
    """The crops of a specification without small limits, computed once for each backend."""
    return functools.cache(lambda name, _backend: crops(mixed, SPECS[name]))


@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize("most", [64 << 20, 1 << 20, 50 << 10], ids=lambda most: f"{most >> 10} KiB")
@pytest.mark.parametrize("name", SPECS)
def test_pictures_that_need_more_memory_get_it(
    name: str, most: int, io: Any, backend: str, mixed: mx8.Dataset, ordinary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that exceed a thread's initial scratch and its limit, so that they use shared memory in turn."""
    expected = ordinary(name, backend)
    monkeypatch.setattr(picture_memory, "_FIRST_BYTES", 3_000)
    monkeypatch.setattr(picture_memory, "_MOST_BYTES", most)
    for threads in (1, 4):
        with time_limit(240):
            assert same(crops(mixed, SPECS[name], io=io, threads=threads, batch_size=5), expected)


@functools.cache
def three_megapixels(kind: str) -> bytes:
    whole = picture(1_500, 2_000, 0, True)
    return file_of(whole, progressive=True) if kind == "progressive" else file_of(whole, kind.upper())


@pytest.mark.parametrize("spec", [SPECS["exact"], mx8.CenterCrop(1_000)], ids=["exact", "fast"])
@pytest.mark.parametrize("kind", ["jpeg", "progressive", "png"])
def test_a_picture_that_does_not_fit_is_an_error_that_suggests_enough_memory(
    place: Path, kind: str, spec: Any, backend: str
) -> None:
    dataset = write(place / f"large {kind}", [three_megapixels(kind)], mode="overwrite", size_limit="10mb")
    with loader_of(dataset, spec, memory="40mb", batch_size=1) as loader, pytest.raises(mx8.LoaderError) as caught:
        list(loader)
    assert isinstance(caught.value.__cause__, DecodeError)
    told = str(caught.value.__cause__)
    assert "column 'image'" in told
    assert "2000 x 1500 pixels" in told
    [times] = re.findall(r"\(a memory= that is (\d+) times as large\)", told)
    assert 1 < int(times) < (20 if kind == "png" else 8)  # refused by a decoder other than Pillow
    assert len(crops(dataset, spec, memory=f"{40 * int(times)}mb", batch_size=1)) == 1


def test_memory_too_small_for_batches_is_an_error_that_suggests_enough(mixed: mx8.Dataset) -> None:
    spec = mx8.CenterCrop(500, dtype="float32")
    with pytest.raises(mx8.SettingError, match="memory: expected room for three batches") as caught:
        loader_of(mixed, spec, batch_size=8, memory="20mb")
    [enough] = re.findall(r"memory=(\d+)", str(caught.value))
    assert len(crops(mixed, spec, batch_size=8, memory=int(enough))) == len(mixed)


_GROWTH = """
import sys
import mx8shards as mx8
from tests.anonymous_memory import anonymous_bytes

most = 0
link, memory, warm, io = sys.argv[1:]
spec = mx8.MultiCrop({"a": mx8.RandomResizedCrop(224), "b": mx8.RandomResizedCrop(96, scale=(0.05, 0.3))})
options = dict(batch_size=8, decode={"image": spec}, threads=4, output="numpy", io=io)
with mx8.Loader(mx8.Dataset(warm), **options) as loader:  # kernels and Pillow's plugins
    list(loader)
with mx8.Loader(mx8.Dataset(link), shuffle=True, memory=memory, **options) as loader:
    before = anonymous_bytes()
    for epoch in range(2):
        for batch in loader:
            most = max(most, anonymous_bytes() - before)
print(most)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nobody tells how much memory is used here")
@pytest.mark.parametrize("io", ["pread", pytest.param("mmap", marks=pytest.mark.hunt)])
def test_anonymous_memory_grows_at_most_by_the_budget(
    io: str, place: Path, repository: Path, mixed: mx8.Dataset
) -> None:
    """Measured as RssAnon, with small and huge pictures mixed, in both formats."""
    root = place / "of all sizes"
    if not root.exists():
        random = np.random.default_rng(3)
        large = picture(2_000, 2_400, 0, True)
        sides = random.lognormal(6, 0.8, (40, 2)).clip(1, 2_500).astype(int)
        files = [jpeg(large), file_of(large[:1_200, :2_000], "PNG", compress_level=1)]
        files += [jpeg(np.ascontiguousarray(large[:height, :width])) for height, width in sides]
        files += [file_of(large[: min(height, 900), :width], "PNG", compress_level=1) for height, width in sides[:8]]
        write(root, files, size_limit="64mb")
    run = [sys.executable, "-c", _GROWTH, str(root), "320mb", str(place / "mixed"), io]
    done = subprocess.run(run, cwd=repository, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 20_000_000 < int(done.stdout) <= (320 << 20) + (64 << 20)


def flat(side: int, kind: str, **options: Any) -> bytes:
    """A large picture in a small file."""
    return file_of(Image.new("RGB", (side, side), (9, 80, 200)), kind, **options)


LARGE: dict[str, Callable[[], bytes]] = {  # pictures for which libraries need much memory
    "progressive": lambda: flat(6_000, "JPEG", progressive=True, quality=30),
    "progressive 4:4:4": lambda: flat(5_000, "JPEG", progressive=True, quality=30, subsampling=0),
    "webp": lambda: flat(2_500, "WEBP", lossless=True),
    "png": lambda: flat(3_000, "PNG"),
    "palette": lambda: file_of(Image.new("P", (4_000, 4_000)), "PNG"),
    "avif": lambda: flat(2_000, "AVIF"),
}

_PEAK = """
import resource, sys
import mx8shards as mx8

warm, link, memory, *out = sys.argv[1:]
options = dict(batch_size=2, decode={"image": mx8.ResizeCrop(16)}, on_error="skip", threads=2, output="numpy")
with mx8.Loader(mx8.Dataset(warm), **options) as loader:  # kernels and Pillow's plugins
    list(loader)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with mx8.Loader(mx8.Dataset(link), memory=memory, **options) as loader:
    list(loader)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others count memory in other units")
@pytest.mark.parametrize("library", [None, ""], ids=["libturbojpeg", "simplejpeg"])
def test_the_peak_memory_of_libraries_is_in_the_budget(place: Path, library: str | None, repository: Path) -> None:
    """Both for decoded and refused pictures: a few kilobytes may be crafted to exhaust memory."""
    small = {"JPEG": {"progressive": True}, "PNG": {}, "WEBP": {"lossless": True}, "AVIF": {}}
    warm, large = place / "small", place / "flat"
    if not large.exists():
        write(warm, [flat(60, name, **options) for name, options in small.items()])
        write(large, [file for make in LARGE.values() for file in [make()] * 2], size_limit="64mb")
    environment = {**os.environ} if library is None else {**os.environ, turbo.VARIABLE: library}
    run = [sys.executable, "-c", _PEAK, str(warm), str(large), "100mb"]
    done = subprocess.run(run, cwd=repository, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= (100 << 20) + (48 << 20)


_MOST = """
import sys, threading, time
import mx8shards as mx8
from tests.anonymous_memory import anonymous_bytes

warm, link, memory, io, on_error, decoder = sys.argv[1:]
options = dict(batch_size=4, decode={"image": eval(f"mx8.{decoder}")}, threads=12, output="numpy", io=io)
with mx8.Loader(mx8.Dataset(warm), on_error="skip", **options) as loader:  # kernels and Pillow's plugins
    list(loader)
most, over, before = 0, threading.Event(), anonymous_bytes()

def watch():
    global most
    while not over.is_set():
        most = max(most, anonymous_bytes() - before)
        time.sleep(0.001)

watching = threading.Thread(target=watch)
watching.start()
try:
    with mx8.Loader(mx8.Dataset(link), memory=memory, on_error=on_error, **options) as loader:
        list(loader)
except mx8.LoaderError as error:
    assert "were bad, too" in str(error)
over.set()
watching.join()
print(most)
"""


@pytest.fixture(scope="module")
def noise(place: Path) -> Path:
    """Many large files: a picture of 27 MB, and a truncated copy of it."""
    file = file_of(np.random.default_rng(1).integers(0, 256, (3_000, 3_000, 3), np.uint8), "PNG", compress_level=1)
    write(place / "noise" / "whole", [file] * 12, size_limit="64mb", hashes=())
    write(place / "noise" / "cut", [file[:-1_000]] * 12, size_limit="64mb", hashes=())
    write(place / "noise" / "small", [flat(60, "PNG"), flat(60, "TIFF"), b"no picture"])
    return place / "noise"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nobody tells how much memory is used here")
@pytest.mark.parametrize(
    ("files", "memory", "on_error"),
    [
        ("whole", "256mb", "skip"),
        pytest.param("whole", "1500mb", "skip", marks=pytest.mark.hunt),
        ("cut", "1500mb", "skip"),
        ("cut", "256mb", "substitute"),
    ],
)
@pytest.mark.parametrize("decoder", ["RandomResizedCrop(64)", pytest.param("Decode()", marks=pytest.mark.hunt)])
@pytest.mark.parametrize("io", ["pread", pytest.param("mmap", marks=pytest.mark.hunt)])
def test_many_threads_with_large_files_keep_to_the_budget(
    io: str, decoder: str, files: str, memory: str, on_error: str, noise: Path, repository: Path
) -> None:
    """Threads that wait for shared memory, and records of lost samples, hold no payloads."""
    run = [sys.executable, "-c", _MOST, *map(str, (noise / "small", noise / files, memory, io, on_error, decoder))]
    done = subprocess.run(run, cwd=repository, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= (int(memory[:-2]) << 20) + (64 << 20)


@pytest.mark.parametrize("on_error", ["skip", "substitute", "raise"])
def test_a_lost_sample_keeps_its_reason_but_no_exception(place: Path, on_error: Any, backend: str) -> None:
    """The traceback of a kept exception would keep frames, and so payloads, alive."""
    whole = file_of(picture(90, 90, 1, True), "PNG")
    files = [whole[: len(whole) // 2] if i % 3 == 1 else whole for i in range(12)]
    dataset = write(place / f"lost {on_error} {backend}", files)
    gc.collect()
    gc.disable()
    try:
        with loader_of(dataset, SPECS["exact"], on_error=on_error, batch_size=12) as loader:
            if on_error == "raise":
                with pytest.raises(mx8.LoaderError) as caught:
                    list(loader)
                reason = caught.value.__cause__
                assert isinstance(reason, DecodeError)
                assert reason.__traceback__ is None
                return
            list(loader)
            assert loader.stats()["lost"] >= 4
        assert [found for found in gc.get_objects() if issubclass(type(found), DecodeError)] == []
    finally:
        gc.enable()
