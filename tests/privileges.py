"""Drop root privileges, so that permission errors can be tested as root."""

from __future__ import annotations

import ctypes
import os


def give_up_privileges() -> None:
    """Drop the capabilities that let root ignore file permissions, permanently for this process."""
    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
        nothing = (ctypes.c_uint32 * 6)()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.capset(header, nothing) != 0:
            raise OSError(ctypes.get_errno(), "capset failed")
