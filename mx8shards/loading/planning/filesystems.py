"""Does a file lie on a network file system, where mapping it is no good idea?"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

# What they have in common: a page of a map may come late, never, or not as it was. FUSE stands for all sorts.
_REMOTE = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p", "ceph", "lustre", "gpfs", "beegfs"),
    *("glusterfs", "orangefs", "pvfs2", "virtiofs", "fuse", "fuseblk", "vboxsf", "prl_fs"),
}


@lru_cache(maxsize=256)
def is_remote(directory: Path) -> bool:
    """Whether the file system that holds this directory is one of the network's."""
    kind = filesystem_of(directory)
    return kind in _REMOTE or kind.startswith("fuse.")


def filesystem_of(directory: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that holds a directory; "" where that is not known."""
    directory = directory.resolve()
    best, kind = -1, ""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(before.split(" ")[4].encode().decode("unicode_escape"))
        if directory.is_relative_to(point) and len(point.parts) >= best:  # the last one mounted there hides the others
            best, kind = len(point.parts), after.split(" ")[0]
    return kind
