"""How do kernels access a payload or a part of it: in a map, in a map after populating its pages, or by reading?

Only this module dispatches on the `way` of a row (`records`). A caller may ask for several parts of one payload.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import ADDRESS, BOOL, INT, array, helper, inner_kernel, kernel, record
from mx8shards.kernels.memory import memcpy, read_fully
from mx8shards.kernels.records import MAPPED, READ, ROW, SHARD
from mx8shards.kernels.residency import populate

Array = npt.NDArray[Any]
Record = Any


@helper
def payload_at(shards: Array, row: Record, begin: Any, size: Any, buffer: Any) -> Any:
    """The address of the bytes [begin, begin + size) of a shard; 0 if they cannot be read.

    The address is in the map, so that nothing is copied. If the row has to be read, the bytes are read to the address
    `buffer`, which is returned. A mapped row costs no call.
    """
    address = shards[row["shard"]]["base"] + np.uint64(begin)
    return address if row["way"] == MAPPED else _fetch(row, address, begin, size, buffer)


@inner_kernel(ADDRESS, record(ROW), ADDRESS, INT, INT, ADDRESS)
def _fetch(row: Record, address: Any, begin: Any, size: Any, buffer: Any) -> Any:
    """`payload_at` for rows whose pages may not be in memory."""
    if row["way"] == READ:
        address = buffer
        good = read_fully(row["file"], buffer, size, begin)
    else:
        good = size == 0 or populate(address, size)
    return address if good else np.uint64(0)


@kernel(BOOL, array(SHARD), record(ROW), INT, INT, ADDRESS)
def copy_payload(shards: Array, row: Record, begin: Any, size: Any, to: Any) -> Any:
    """Copy the bytes [begin, begin + size) of a shard to an address; False if they cannot be read."""
    address = payload_at(shards, row, begin, size, to)
    if address != 0 and address != to:
        memcpy(to, address, np.uint64(size))
    return address != 0
