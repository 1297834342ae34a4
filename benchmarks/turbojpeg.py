"""Where are the libturbojpegs that the same pictures can be decoded with?"""

from __future__ import annotations

import ctypes.util
from importlib import metadata


def path_of(library: str) -> str | None:
    """What MX8SHARDS_TURBOJPEG must hold for this library; None if it is not here.

    "turbojpeg": the 3.x that the wheel of this name brings; "system": the system's; "none": no library at all.
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
