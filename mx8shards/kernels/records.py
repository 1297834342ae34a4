"""What do kernels know of shards, of the rows of a batch, and of where payloads lie? One record for each."""

from __future__ import annotations

import numpy as np

# One open shard. `base` is the address of its map, 0 if it is not mapped; `table` that of its number of samples, which
# the offsets follow, 0 if the shard cannot be opened; `window` is the number of its first window among all shards';
# shards of one `kind` have the same columns.
SHARD = np.dtype([("base", "u8"), ("table", "u8"), ("size", "i8"), ("window", "i8"), ("kind", "i8")])

# One row of a batch: which sample, where it lies in its shard, how it is reached, and what became of it. `file` is the
# descriptor that it is read by, which is held open for this batch and no other.
ROW = np.dtype(
    [
        ("sample_id", "i8"),
        ("begin", "i8"),
        ("end", "i8"),
        ("shard", "i4"),
        ("file", "i4"),
        ("way", "u1"),
        ("status", "u1"),
    ],
    align=True,
)

# One payload: where it begins in its shard, and how long it is.
SPAN = np.dtype([("begin", "i8"), ("size", "i8")])

# ways to a row's bytes
UNKNOWN = 0
MAPPED = 1  # copied from the map, which is populated there
READ = 2  # read into the bank
FAULT = 3  # the map is populated just there before it is copied from

# what became of a row
OK = 0
OUT_OF_SHARD = 1  # its span is none: the table changed after it was checked
SIZES_DIFFER = 2  # its size header does not add up to its length
READ_FAILED = 3  # the file gave fewer bytes, or an error
REFUSED = 4  # a stage could not make anything of its payload
NOT_OPENED = 5  # its shard cannot be opened
ABSENT = 6  # it is padding: it has no sample, and is neither read nor decoded
