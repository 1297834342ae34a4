"""Is this basename safe to join to a directory? (spec: basenames)"""

from __future__ import annotations

import re

# One expression for the whole path: components that start with neither a dot nor nothing, joined by single slashes.
_COMPONENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}"
BASENAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
RULE = "a relative path of components [A-Za-z0-9_-][A-Za-z0-9._-]{0,254}"
MAX_CHARS = 4096


def is_basename(text: object) -> bool:
    """Whether `text` is a relative POSIX path that can lead nowhere but below the directory it is joined to."""
    return isinstance(text, str) and len(text) <= MAX_CHARS and BASENAME.fullmatch(text) is not None
