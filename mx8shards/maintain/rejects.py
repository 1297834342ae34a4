"""Where does one read what could not be converted?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from mx8shards.disk import operations, publish
from mx8shards.shards.snapshots import STATE


def keep_rejects(root: Path, snapshot: str, rejects: Iterable[tuple[str, str]]) -> Path:
    """Write a line of JSON for each item and its reason, beside the snapshot that was made without them; the path."""
    path = root / STATE / f"rejects-{snapshot.removeprefix('sha256:')[:16]}.jsonl"
    lines = "".join(f"{json.dumps({'item': item, 'reason': reason})}\n" for item, reason in rejects)
    with operations.refusals("write", path):
        if path.exists():
            operations.unlink(path)
        publish.write_file(path, [lines.encode()])
    return path
