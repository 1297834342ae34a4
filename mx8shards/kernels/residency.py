"""Which rows can be copied from their shard's map because they are in the page cache, and which have to be read?

A shard's file is divided into windows of 4 MiB. A window whose pages are in the page cache is populated as a whole
before it is accessed, which fails with an error code if the file was truncated. (If it is truncated later, accessing
the map raises SIGBUS; only reading is safe from that.) Rows in other windows are read into the bank; posix_fadvise
announces all of them to the operating system before the first one is read.
"""

from __future__ import annotations

import errno
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import ADDRESS, BOOL, INT, MEMORY, NOTHING, array, brief_kernel, helper, kernel
from mx8shards.kernels.memory import KNOWS_CACHE, errno_address, fadvise, load_uint32, madvise, mincore, preadv2, typed
from mx8shards.kernels.records import MAPPED, OK, READ, ROW, SHARD, SPAN, UNKNOWN

Array = npt.NDArray[Any]

_SHARDS, _ROWS = array(SHARD), array(ROW)  # types

WINDOW_BYTES = 4 << 20
PAGE_BYTES = mmap.PAGESIZE  # 16 or 64 KiB on some arm64 machines
PROBE_BYTES = 32 + WINDOW_BYTES // PAGE_BYTES  # of scratch, for `judge_windows`

_PROBES = 8  # pages to probe in a window: if half of its pages are missing, this goes unnoticed once in 256 times
_FEW = 64  # a window counts as cached if at most one of 64 pages is missing
_NOWAIT = 8  # RWF_NOWAIT: fail instead of waiting for the disk
_RANDOM = 1  # MADV_RANDOM
_UNSUPPORTED = errno.EOPNOTSUPP  # the file system, such as tmpfs, does not support RWF_NOWAIT
_POPULATE = 22  # MADV_POPULATE_READ
_WILLNEED = 3  # POSIX_FADV_WILLNEED
_ADVICE_BYTES = 128 << 10  # Linux silently limits a longer request to the read-ahead size of the device


def can_map() -> bool:
    """Whether the system can query the page cache and populate a map: Linux 5.14 and later can."""
    if not KNOWS_CACHE:
        return False
    with mmap.mmap(-1, PAGE_BYTES) as page:
        try:
            page.madvise(_POPULATE)
        except OSError:
            return False
    return True


@brief_kernel(NOTHING, _SHARDS, _ROWS, MEMORY, INT, array(np.int64))
def choose_ways(shards: Array, rows: Array, verdicts: Array, cold: int, counts: Array) -> None:
    """Set the way of each row from the verdicts on its windows, `cold` where a window is not cached; count the ways.

    The way is UNKNOWN if a window has no verdict yet. A row that is not OK is not read, and counts as mapped.
    """
    counts[:] = 0
    for i in range(len(rows)):
        shard = rows[i]["shard"]
        way = MAPPED
        good = rows[i]["status"] == OK
        if good and shards[shard]["base"] == 0:
            way = READ
        elif good and rows[i]["begin"] < rows[i]["end"]:
            first = shards[shard]["window"] + rows[i]["begin"] // WINDOW_BYTES
            last = shards[shard]["window"] + (rows[i]["end"] - 1) // WINDOW_BYTES
            for window in range(first, last + 1):
                if verdicts[window] == UNKNOWN:
                    way = UNKNOWN
                    break
                if verdicts[window] == READ:
                    way = cold
        rows[i]["way"] = way
        counts[way] += 1


@kernel(NOTHING, _SHARDS, array(np.bool_), _ROWS, MEMORY, array(np.bool_), MEMORY)
def judge_windows(
    shards: Array, mincore_reliable: Array, rows: Array, scratch: Array, populated: Array, verdicts: Array
) -> None:
    """Find a verdict for the windows of all rows whose way is UNKNOWN: MAPPED if cached and populated, else READ.

    `populated` marks the windows that are populated: this costs far more than probing, so it is done once.
    `mincore_reliable` marks the shards for which mincore gives true answers.
    """
    for i in range(len(rows)):
        if rows[i]["way"] != UNKNOWN or rows[i]["status"] != OK:
            continue
        shard = rows[i]["shard"]
        for number in range(rows[i]["begin"] // WINDOW_BYTES, (rows[i]["end"] - 1) // WINDOW_BYTES + 1):
            window = shards[shard]["window"] + number
            if verdicts[window] != UNKNOWN:
                continue
            begin = np.int64(number * WINDOW_BYTES)
            size = min(np.int64(WINDOW_BYTES), shards[shard]["size"] - begin)
            address = shards[shard]["base"] + np.uint64(begin)
            verdict = READ
            cached = _is_cached(rows[i]["file"], address, begin, size, mincore_reliable[shard], scratch)
            if cached and not populated[window]:
                populated[window] = madvise(address, np.uint64(size), _POPULATE) == 0
            if cached and populated[window]:
                verdict = MAPPED
            verdicts[window] = verdict


@helper
def _is_cached(descriptor: int, address: Any, begin: Any, size: Any, mincore_reliable: Any, scratch: Array) -> Any:
    """Whether (nearly) all pages of a window are in the page cache.

    mincore gives exact answers only if the process owns the file or may write to it; otherwise it reports all pages as
    cached. Then a few single bytes are read as well, with RWF_NOWAIT, so that nothing is read from the disk.
    """
    pages = (size + PAGE_BYTES - 1) // PAGE_BYTES
    bytes_at = np.uint64(scratch.ctypes.data) + np.uint64(32)
    if mincore(address, np.uint64(size), bytes_at) == 0:
        missing = 0
        for page in range(pages):
            missing += 1 - (scratch[32 + page] & 1)
        if missing * _FEW > pages:
            return False
        if mincore_reliable:
            return True
    vector = typed(scratch[:16], np.uint64)
    vector[0] = np.uint64(scratch.ctypes.data) + np.uint64(16)
    vector[1] = 1
    for k in range(_PROBES):
        at = begin + (pages * k // _PROBES) * PAGE_BYTES
        if preadv2(descriptor, np.uint64(scratch.ctypes.data), 1, at, _NOWAIT) != 1:
            return load_uint32(errno_address()) == _UNSUPPORTED  # then mincore alone decides
    return True


@kernel(NOTHING, _ROWS, INT)
def advise_samples(rows: Array, most: int) -> None:
    """Ask for the first `most` bytes of all cold rows to be read into the page cache, without waiting."""
    for i in range(len(rows)):
        if rows[i]["way"] != MAPPED:
            end = min(rows[i]["end"], rows[i]["begin"] + most)
            for begin in range(rows[i]["begin"], end, _ADVICE_BYTES):
                fadvise(rows[i]["file"], begin, min(end - begin, np.int64(_ADVICE_BYTES)), _WILLNEED)


@kernel(NOTHING, _ROWS, array(SPAN, 2))
def advise_spans(rows: Array, spans: Array) -> None:
    """Ask for the payloads of all cold rows to be read into the page cache, without waiting."""
    for i in range(len(rows)):
        if rows[i]["way"] != MAPPED:
            for column in range(spans.shape[1]):
                end = spans[i, column]["begin"] + spans[i, column]["size"]
                for begin in range(spans[i, column]["begin"], end, _ADVICE_BYTES):
                    fadvise(rows[i]["file"], begin, min(end - begin, np.int64(_ADVICE_BYTES)), _WILLNEED)


@kernel(BOOL, ADDRESS, INT)
def populate(address: Any, size: Any) -> Any:
    """Populate the pages of some mapped bytes before they are accessed; False if that fails."""
    before = address % np.uint64(PAGE_BYTES)
    return madvise(address - before, np.uint64(size) + before, _POPULATE) == 0


@kernel(NOTHING, ADDRESS, INT)
def expect_random(address: int, size: int) -> None:
    """Advise that accesses to a map are random, so that no neighbouring pages are read."""
    madvise(address, np.uint64(size), _RANDOM)
