"""Which record types describe shards, the rows of a batch, and the spans of payloads? Shared by kernels and Python."""

from __future__ import annotations

import numpy as np

# One open shard. `base` is the address of its map, or 0 if it is not mapped. `table` is the address of its head (the
# number of samples, then the offset table), or 0 if the shard cannot be opened. `window` is the index of its first
# window among the windows of all shards (`residency`). Shards of one `kind` have the same columns.
SHARD = np.dtype([("base", "u8"), ("table", "u8"), ("size", "i8"), ("window", "i8"), ("kind", "i8")])

# One row of a batch: its sample, the sample's span in the shard, how its bytes are accessed, and its status. `file` is
# the file descriptor for reading it, which is kept open for this batch only.
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

# The offset and size of one payload in its shard.
SPAN = np.dtype([("begin", "i8"), ("size", "i8")])

# Values of `way`: how the bytes of a row are accessed.
UNKNOWN = 0
MAPPED = 1  # copied from the map, whose pages are populated
READ = 2  # read from the file
FAULT = 3  # copied from the map after its pages are populated for this row

# Values of `status`.
OK = 0
OUT_OF_SHARD = 1  # its span is not inside of the shard: the table changed after it was checked
SIZES_DIFFER = 2  # its size header does not add up to the size of the sample
READ_FAILED = 3  # reading failed or returned too few bytes
REFUSED = 4  # a stage could not decode its payload
NOT_OPENED = 5  # its shard cannot be opened
ABSENT = 6  # padding: the row has no sample, and is neither read nor decoded
