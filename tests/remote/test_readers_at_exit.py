"""Is the end of the interpreter silent, although the runs on a mirror are never closed?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import threading
from pathlib import Path

from mx8shards.remote import readers

sys.kept = readers
threading.kept = readers.Readers(Path(sys.argv[1]), None)  # modules lose their globals in reverse order of import
"""


def test_readers_that_outlive_their_module_end_without_a_message(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
