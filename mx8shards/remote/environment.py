"""Which environment variables do object stores read? The helper process opens stores with those of the asking process.

It has threads, and C code in one of them may read a variable while another thread sets one, which is a crash in glibc
before 2.41. So nothing is set that no store reads, such as LOCAL_RANK, and nothing that is equal already.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# PATH is for `credential_process` in a profile of AWS, HOME for the profiles.
_NAMES = ("HOME", "PATH", "SERVICE_ACCOUNT", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "REQUESTS_CA_BUNDLE")
_PREFIXES = ("AWS_", "S3_", "BOTO_", "GOOGLE_", "CLOUDSDK_", "AZURE_", "HF_", "SSL_")
_SUFFIX = "_PROXY"  # in upper or lower case


def of_stores() -> dict[str, str]:
    """The variables of this process that a store may read."""
    return {name: os.environ[name] for name in sorted(os.environ) if _is_of_stores(name)}


def adopt(wanted: Mapping[str, str]) -> None:
    """Give this process these variables instead of those that a store may read."""
    for name in of_stores().keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _is_of_stores(name: str) -> bool:
    return name in _NAMES or name.startswith(_PREFIXES) or name.upper().endswith(_SUFFIX)
