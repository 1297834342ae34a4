"""Where are rejects (items that could not be converted) listed? In a .jsonl file beside the snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from mx8shards.disk import operations, publish
from mx8shards.shards.snapshots import STATE


def keep_rejects(root: Path, snapshot: str, rejects: Iterable[tuple[str, str]]) -> Path:
    """Write one line of JSON for each rejected item and its reason into the dataset's directory. Returns the path."""
    path = root / rejects_name(snapshot)
    with operations.disk_errors("write", path):
        if path.exists():
            operations.unlink(path)
        publish.write_file(path, [reject_lines(rejects)])
    return path


def rejects_name(snapshot: str) -> str:
    """The name of the file with the rejects of the conversion that made a snapshot."""
    return f"{STATE}/rejects-{snapshot.removeprefix('sha256:')[:16]}.jsonl"


def reject_lines(rejects: Iterable[tuple[str, str]]) -> bytes:
    """One line of JSON for each rejected item and its reason."""
    return "".join(f"{json.dumps({'item': item, 'reason': reason})}\n" for item, reason in rejects).encode()
