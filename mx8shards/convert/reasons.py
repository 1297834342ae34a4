"""Which OSErrors are about the item (a reject), and which are about the machine (the conversion stops)?

Rejects are stored in their part and not tried again. So a failing disk, a lost network, or a lack of memory or file
descriptors must end the conversion; once the cause is gone, running the same command again resumes it.
"""

from __future__ import annotations

import errno

# The errno values that are about a path or its file. All others are about the machine.
_OF_A_FILE = frozenset(
    (
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG),
        *(errno.EINVAL, errno.EILSEQ, errno.ENXIO, errno.ENODEV, errno.EFBIG, errno.EOVERFLOW),
    )
)


def is_about_file(error: OSError) -> bool:
    """Whether an error is about the file. An OSError without errno is: libraries raise it for bad content."""
    return error.errno is None or error.errno in _OF_A_FILE
