"""Which rows may be copied from their shard's map, and which have to be read?

A shard's file is looked at in windows. One whose pages are in the page cache is populated, all of it at once, before
any of it is touched: where the file had been cut short by then, that is an error code. (Cut short later, a map gives a
signal, which nobody can prevent: only reading is safe from that.) Rows in all other windows are read into the bank; the
kernel is told of all of them before the first is waited for.
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

_PROBES = 8  # half of the pages missing are overlooked once in 256 times
_FEW = 64  # one page in so many may be missing
_NOWAIT = 8  # RWF_NOWAIT: an error instead of a wait for the disk
_RANDOM = 1  # MADV_RANDOM
_UNSUPPORTED = errno.EOPNOTSUPP  # by tmpfs, among others
_POPULATE = 22  # MADV_POPULATE_READ
_WILLNEED = 3  # POSIX_FADV_WILLNEED
_AT_ONCE = 128 << 10  # a longer advice is cut, silently, to what the device reads ahead


def can_map() -> bool:
    """Whether this system tells what is cached and populates a map on request: Linux does, from 5.14 on."""
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
    """Each row's way, as far as windows were judged: `cold` in those that are not cached. How many go each way.

    Nothing is read for a row that is not OK: it counts as mapped.
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
def judge_windows(shards: Array, told: Array, rows: Array, scratch: Array, populated: Array, verdicts: Array) -> None:
    """Judge the windows of all rows whose way is UNKNOWN: MAPPED if they are cached and populated, else READ.

    Populating costs far more than asking, so it is done once: `populated` says where it was; `told`, of which shards
    mincore tells the truth.
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
            cached = _is_cached(rows[i]["file"], address, begin, size, told[shard], scratch)
            if cached and not populated[window]:
                populated[window] = madvise(address, np.uint64(size), _POPULATE) == 0
            if cached and populated[window]:
                verdict = MAPPED
            verdicts[window] = verdict


@helper
def _is_cached(descriptor: int, address: Any, begin: Any, size: Any, told: Any, scratch: Array) -> Any:
    """Whether (nearly) all pages of a window are in the page cache.

    mincore knows it exactly, but tells only those who own the file or may write it, and says yes to all others. They
    read a few bytes as well, on condition that no disk has to be waited for.
    """
    pages = (size + PAGE_BYTES - 1) // PAGE_BYTES
    bytes_at = np.uint64(scratch.ctypes.data) + np.uint64(32)
    if mincore(address, np.uint64(size), bytes_at) == 0:
        missing = 0
        for page in range(pages):
            missing += 1 - (scratch[32 + page] & 1)
        if missing * _FEW > pages:
            return False
        if told:
            return True
    vector = typed(scratch[:16], np.uint64)
    vector[0] = np.uint64(scratch.ctypes.data) + np.uint64(16)
    vector[1] = 1
    for k in range(_PROBES):
        at = begin + (pages * k // _PROBES) * PAGE_BYTES
        if preadv2(descriptor, np.uint64(scratch.ctypes.data), 1, at, _NOWAIT) != 1:
            return load_uint32(errno_address()) == _UNSUPPORTED  # then only mincore can be asked
    return True


@kernel(NOTHING, _ROWS, INT)
def advise_samples(rows: Array, most: int) -> None:
    """Have the first so many bytes of all cold rows brought into the page cache, without waiting for them."""
    for i in range(len(rows)):
        if rows[i]["way"] != MAPPED:
            end = min(rows[i]["end"], rows[i]["begin"] + most)
            for begin in range(rows[i]["begin"], end, _AT_ONCE):
                fadvise(rows[i]["file"], begin, min(end - begin, np.int64(_AT_ONCE)), _WILLNEED)


@kernel(NOTHING, _ROWS, array(SPAN, 2))
def advise_spans(rows: Array, spans: Array) -> None:
    """The same for the payloads of all cold rows."""
    for i in range(len(rows)):
        if rows[i]["way"] != MAPPED:
            for column in range(spans.shape[1]):
                end = spans[i, column]["begin"] + spans[i, column]["size"]
                for begin in range(spans[i, column]["begin"], end, _AT_ONCE):
                    fadvise(rows[i]["file"], begin, min(end - begin, np.int64(_AT_ONCE)), _WILLNEED)


@kernel(BOOL, ADDRESS, INT)
def populate(address: Any, size: Any) -> Any:
    """Have the pages of some mapped bytes there before they are touched; False if they cannot be."""
    before = address % np.uint64(PAGE_BYTES)
    return madvise(address - before, np.uint64(size) + before, _POPULATE) == 0


@kernel(NOTHING, ADDRESS, INT)
def expect_random(address: int, size: int) -> None:
    """Say that a map is touched here and there: no page beside those touched is worth reading."""
    madvise(address, np.uint64(size), _RANDOM)
