"""Do the tests of kernels pass with Numba's bounds checks, which find reads outside of an array?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# One process for all, so that the kernels which several files use are compiled once.
FILES = (
    *(f"tests/unit/test_{name}.py" for name in ("gather", "shard_table", "feistel", "boxes", "crop", "jpeg", "tiles")),
    "tests/unit/test_video_frames.py",
    "tests/unit/test_direct_decoding.py",
    "tests/property/test_tiles.py",
)
# These start processes of their own, or compare with PyTorch.
ELSEWHERE = "second_process or recompiled or python_and_compiled or torch"


def test_the_kernels_pass_with_bounds_checking(tmp_path: Path, repository: Path) -> None:
    # A separate cache: a warm one ignores the switch, and would keep the checked code. Less optimisation: the compiler
    # takes most of the time.
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_OPT": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", f"not ({ELSEWHERE})", *FILES]
    done = subprocess.run(run, env=environment, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
