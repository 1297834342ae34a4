"""Which failures say that an item is bad, and which that the machine is in trouble?

A bad item becomes a reject, which its part keeps for good. A disk that fails, a network that is gone, or a lack of
memory or descriptors has to end the conversion instead: the same command goes on when it is over.
"""

from __future__ import annotations

import errno

# What the system says of a path or of the file there; all other numbers are about the machine.
_OF_A_FILE = frozenset(
    (
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG),
        *(errno.EINVAL, errno.EILSEQ, errno.ENXIO, errno.ENODEV, errno.EFBIG, errno.EOVERFLOW),
    )
)


def is_about_file(error: OSError) -> bool:
    """Whether reading would fail on any machine in good order. Libraries raise an OSError without a number for that."""
    return error.errno is None or error.errno in _OF_A_FILE
