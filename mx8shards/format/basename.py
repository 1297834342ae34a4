"""Is a shard's basename safe to join to the dataset's directory (path traversal)? (spec: basenames)"""

from __future__ import annotations

import re

# The whole path: non-empty components that do not start with a dot, separated by single slashes.
_COMPONENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}"
BASENAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
RULE = "a relative path of components [A-Za-z0-9_-][A-Za-z0-9._-]{0,254}"
MAX_CHARS = 4096


def is_basename(text: object) -> bool:
    """Whether `text` is a relative POSIX path that stays below the directory it is joined to."""
    return isinstance(text, str) and len(text) <= MAX_CHARS and BASENAME.fullmatch(text) is not None
