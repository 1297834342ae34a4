"""Where do tests write that make thousands of datasets?"""

from __future__ import annotations

import os

# In memory, where an fsync costs nothing; None: in the directory for temporary files.
QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
