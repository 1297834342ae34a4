"""On which hardware and versions was a case measured? The facts do not identify the machine."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = (
    *("mx8shards", "mosaicml-streaming", "litdata", "webdataset", "spdl-core", "spdl-io", "ffcv"),
    *("numpy", "numba", "zstandard", "blake3", "xxhash", "torch", "Pillow", "simplejpeg"),
    *("av", "torchcodec", "decord2", "opencv-python-headless"),
)


def facts(directory: Path) -> dict[str, object]:
    """Processor, memory, disk of `directory`, versions and commit."""
    return {
        "processor": _first(r"model name\s*: (.*)", Path("/proc/cpuinfo")) or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "disk": _disk(directory),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def filesystem(directory: Path) -> tuple[str, str]:
    """The file system of a directory, and its kind of device."""
    mounts = [line.split()[:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    holding = [mount for mount in mounts if directory.is_relative_to(mount[1])]
    device, _, kind = max(holding, key=lambda mount: len(mount[1]))
    return kind, device


def _disk(directory: Path) -> str:
    kind, device = filesystem(directory)
    name = re.sub(r"p?\d+$", "", Path(device).name)
    rotates = Path(f"/sys/block/{name}/queue/rotational")
    spins = rotates.is_file() and rotates.read_text().strip() == "1"
    virtual = name.startswith(("vd", "xvd"))
    return f"{kind} on {'a virtual disk' if virtual else 'a rotating disk' if spins else name}"


def _first(pattern: str, path: Path) -> str:
    match = re.search(pattern, path.read_text()) if path.is_file() else None
    return match[1].strip() if match else ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "mx8shards", "benchmarks/*.py")
    return git("rev-parse", "--short=12", "HEAD") + (" and uncommitted changes" if changed else "")
