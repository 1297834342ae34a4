"""How long does each step of decoding and cropping a picture take?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import mx8shards as mx8
from benchmarks import picture_contenders, pictures
from benchmarks.harness import Column, Job, Target
from benchmarks.picture_contenders import GENERATED, LARGE, PLANES, TILED, UNTOUCHED, Kind
from benchmarks.process import Measured, Numbers
from mx8shards.kernels import boxes
from mx8shards.kernels.colour_conversion import JFIF, put, to_rgb, value_table
from mx8shards.kernels.cuts import JOB, TILES, WORKSPACE, cut_whole, find_cut
from mx8shards.kernels.decompress import decode_planes, decoded_planes
from mx8shards.kernels.jit import INT, MEMORY, array, kernel, record
from mx8shards.kernels.jpeg import read_head
from mx8shards.kernels.jpeg_tiles import splice
from mx8shards.kernels.resample import carve
from mx8shards.kernels.write_crops import crop_planes
from mx8shards.kernels.yuv420_planes import is_yuv420, planes_of, size_of
from mx8shards.media.decoding import aligned_scratch

Array = npt.NDArray[Any]

NEEDS_BYTES = 1_000_000_000
NOTES = """\
- Microseconds of one core for one random crop of 224 pixels, with the loader's kernels, from memory. The first n steps
  are run over all pictures repeatedly; the time of step n is the increase of the fastest pass.
- Entropy: decoding at 1/8 size, which does hardly any other work. Inverse DCT: the additional time for the planes. For
  a crop of at least twice the output size, planes are decoded at 1/2, 1/4 or 1/8.
- Resample: three planes to 224 × 224. Colour: YCbCr to RGB into the batch, timed separately.
"""
STEPS = ("head_us", "tiles_us", "entropy_us", "idct_us", "resample_us", "colour_us")
TITLES = ("head, boxes", "tiles cut out", "entropy", "inverse DCT", "resample", "colour")
COLUMNS = (
    *(Column(title=title, number=name, digits=0) for title, name in zip(TITLES, STEPS, strict=True)),
    Column(title="sum, µs", number="sum_us", digits=0),
)
GROUPS = {f"{kind.name}, random crop": kind for kind in (GENERATED, LARGE)}
FORMS = {TILED: "tiled", UNTOUCHED: "mds", PLANES: "yuv420"}
COUNTS = {GENERATED: 200, LARGE: 6}
SIZE = 224
ALL = 4  # number of consecutive steps: head, tiles, entropy, planes, crop


def _asked(quick: bool) -> dict[str, Kind]:
    return {group: kind for group, kind in GROUPS.items() if not quick or kind is GENERATED}


def _forms(quick: bool) -> dict[str, str]:
    return {name: form for name, form in FORMS.items() if not quick or form != "yuv420"}


def _count(kind: Kind, quick: bool) -> int:
    return 10 if quick else COUNTS[kind]


def prepare(directory: Path, *, quick: bool) -> None:
    """Write some pictures of both kinds, in every format."""
    for kind in _asked(quick).values():
        count = _count(kind, quick)
        pictures.write_folder(kind.folder(directory) / "files", kind.make(count), count)
        for form in _forms(quick).values():
            picture_contenders.write(kind.folder(directory), form)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """One job for each format."""
    return [
        Job(
            group=group,
            contender=name,
            run=steps,
            arguments={"root": str(kind.folder(directory) / form), "passes": 1 if quick else 7},
        )
        for group, kind in _asked(quick).items()
        for name, form in _forms(quick).items()
    ]


def targets() -> list[Target]:
    """None: this case shows what to optimise next."""
    return []


# in a process of its own ------------------------------------------------------------------------------------------


def steps(root: str, passes: int) -> Numbers:
    """Microseconds per picture that each step adds."""
    dataset = mx8.Dataset(root)
    payloads = [np.array(dataset.payload(i, "image")) for i in range(len(dataset))]
    data, ends = np.concatenate(payloads), np.cumsum([len(payload) for payload in payloads])
    draws = np.random.default_rng(17).random((len(payloads), 1, boxes.DRAWS))
    jobs, workspace = _random_crop(), np.zeros(1, WORKSPACE)[0]
    memory, out = aligned_scratch(128 << 20), aligned_scratch(3 * SIZE * SIZE)
    memory[:] = 1
    jobs["target"]["address"], jobs["target"]["item_bytes"] = out.ctypes.data, 1

    def begin_s(upto: int) -> float:
        start = time.thread_time()
        done = _run(upto, data, ends, jobs, draws, workspace, memory)
        assert done == len(payloads), f"picture {done} cannot be decoded"
        return (time.thread_time() - start) / len(payloads)

    def colour_s(times: int) -> float:
        levels = memory[: 3 * SIZE * SIZE].reshape(3, SIZE, SIZE)
        start = time.thread_time()
        for _ in range(times):
            to_rgb(levels, JFIF)
            put(levels, (SIZE, SIZE), jobs[0]["values"], False, out)
        return (time.thread_time() - start) / times

    with Measured() as whole:
        begin_s(ALL), colour_s(1)  # compiles the kernels
        micros = 1e6 * np.min([[begin_s(upto) for upto in range(ALL + 1)] for _ in range(passes)], axis=0)
        colour_us = 1e6 * min(colour_s(20) for _ in range(passes))
    head, tiles, entropy, planes, crop = np.diff(micros, prepend=0.0).clip(0)  # noise can make a difference negative
    added = (head, tiles, entropy, planes, crop - colour_us, colour_us)
    return {**dict(zip(STEPS, map(float, added), strict=True)), "sum_us": float(micros[-1]), **whole.numbers}


def _random_crop() -> Array:
    """RandomResizedCrop as a kernel argument."""
    jobs = np.zeros(1, JOB)
    jobs["values"] = value_table(np.ones(3), np.zeros(3), np.uint8)
    crop = jobs["crop"]
    crop["kind"], crop["height"], crop["width"] = boxes.RANDOM, SIZE, SIZE
    crop["scale_low"], crop["scale_high"], crop["ratio_low"], crop["ratio_high"] = 0.08, 1, 3 / 4, 4 / 3
    return jobs


@kernel(
    INT,
    INT,
    MEMORY,
    array(np.int64),
    array(JOB),
    array(np.float64, 3),
    record(WORKSPACE),
    MEMORY,
)
def _run(upto: int, data: Array, ends: Array, jobs: Array, draws: Array, workspace: Any, memory: Array) -> Any:
    """Run the first steps, up to `last`, on each picture. Returns the number of pictures."""
    head, cut, places = workspace["head"], workspace["cut"], workspace["planes"][:]
    begin = 0
    for i in range(len(ends)):
        jpeg = data[begin : ends[i]]
        begin = ends[i]
        if is_yuv420(jpeg):
            height, width = size_of(jpeg)
            cut_whole(width, height, jobs, draws[i], cut)
            if upto == ALL:
                crop_planes(planes_of(jpeg, height, width), (2, 2), cut, jobs, 0, memory)
            continue
        read_head(jpeg, head)
        find_cut(jpeg, head, jobs, draws[i], False, False, 0, cut)
        rest = memory
        if upto > 0 and cut["how"] == TILES:
            spliced, rest = carve(memory, len(jpeg))
            size = splice(jpeg, head, jpeg, 0, cut["tiles"], spliced)
            if size < 0:
                return i
            jpeg = spliced[:size]
        if upto > 1:
            if upto == 2:
                cut["scale"] = 8
            used = decode_planes(jpeg, head, cut, places, rest)
            if used == 0:
                return i
            if upto == ALL:
                factors = (head["h"][0], head["v"][0])
                crop_planes(decoded_planes(places, rest), factors, cut, jobs, 0, rest[used:])
    return len(ends)
