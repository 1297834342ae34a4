"""Which libturbojpeg libraries are installed, for comparing decoders?"""

from __future__ import annotations

import ctypes.util
from importlib import metadata


def path_of(library: str) -> str | None:
    """The value of MX8SHARDS_TURBOJPEG for a library; None if it is not installed.

    "turbojpeg": the 3.x in the wheel of this name; "system": the system's library; "none": no library.
    """
    if library == "none":
        return ""
    if library == "system":
        return ctypes.util.find_library("turbojpeg")
    try:
        files = metadata.files(library) or []
    except metadata.PackageNotFoundError:
        return None
    return next((str(file.locate()) for file in files if file.name.startswith("libturbojpeg")), None)
