"""Is a file on a network file system (NFS, Lustre, FUSE, …), where mmap is unsafe or slow?"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

# On these, a page fault may be slow, never return, or read changed bytes. FUSE may have any of these faults.
_REMOTE = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p", "ceph", "lustre", "gpfs", "beegfs"),
    *("glusterfs", "orangefs", "pvfs2", "virtiofs", "fuse", "fuseblk", "vboxsf", "prl_fs"),
}


@lru_cache(maxsize=256)
def is_remote(directory: Path) -> bool:
    """Whether this directory is on a network file system."""
    kind = filesystem_of(directory)
    return kind in _REMOTE or kind.startswith("fuse.")


def filesystem_of(directory: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system of a directory; "" if unknown."""
    directory = directory.resolve()
    best, kind = -1, ""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(before.split(" ")[4].encode().decode("unicode_escape"))
        if directory.is_relative_to(point) and len(point.parts) >= best:  # a later mount hides an earlier one
            best, kind = len(point.parts), after.split(" ")[0]
    return kind
