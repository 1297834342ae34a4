"""Which loaders decode pictures, from which files? Contenders for the picture benchmarks."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import loader_contenders, pictures, reading, turbojpeg
from benchmarks.harness import Job, Target, Wanted, is_installed, say
from benchmarks.loader_contenders import Contender, Reading
from benchmarks.machine import ROOT

UNTOUCHED, TILED, PLANES = "mx8shards, untouched files", "mx8shards, tiled", "mx8shards, yuv420"
EXACT, SIMPLEJPEG = "mx8shards, untouched files, exact", "mx8shards, tiled, simplejpeg only"
REFERENCE, SYSTEM = "mx8shards, tiled, another libturbojpeg 3.x", "mx8shards, tiled, the system's libturbojpeg"
FFCV, PILLOW, MOSAIC = "FFCV", "Pillow + torch DataLoader", "streaming + Pillow"
LIT, SPDL = "litdata + Pillow", "SPDL (FFmpeg)"

THREADS = loader_contenders.THREADS
FEW_ROUNDS = 2  # rounds for contenders that are far slower or faster than the others


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of pictures: `different` pictures, repeated to make `count` files."""

    name: str
    make: Callable[[int], list[bytes]]
    different: int
    count: int
    batch: int

    def folder(self, directory: Path) -> Path:
        """The directory of all formats of these pictures."""
        return directory / self.name.replace(" ", "-")


GENERATED = Kind("generated", pictures.generated, 640, 6_400, 64)
REAL = Kind("photographs", pictures.real, 450, 4_480, 64)
LARGE = Kind("12 megapixels", pictures.large, 12, 96, 8)

OPTIONS = {
    "mds": ["--no-tiles"],
    "tiled": [],
    "yuv420": ["--format", "yuv420"],
}  # options of our converter for each format
WRITERS = {"stock": "mosaicml_images", "litdata": "lightning_images"}
IMAGE_AND_LABEL = {"image": "bytes", "label": "int"}


def ours(crops: str, forms: Sequence[str] = ("tiled", "mds", "yuv420")) -> list[Contender]:
    """Our loader, for each format of our files. The first one is the reference of the ratios."""
    names, rounds = {"mds": UNTOUCHED, "tiled": TILED, "yuv420": PLANES}, {"yuv420": FEW_ROUNDS}
    return [Contender(names[form], "ours_images", form, [{"crops": crops}], rounds=rounds.get(form)) for form in forms]


def ours_variants(crops: str) -> list[Contender]:
    """Our loader with exact decoding (to RGB before resizing), and with other JPEG libraries than pip's."""
    libraries = {REFERENCE: "turbojpeg", SYSTEM: "system", SIMPLEJPEG: "none"}
    return [
        Contender(EXACT, "ours_images", "mds", [{"crops": crops, "exact": True}], rounds=FEW_ROUNDS),
        *(
            Contender(name, "ours_images", "tiled", [{"crops": crops, "library": library}], rounds=rounds)
            for (name, library), rounds in zip(libraries.items(), (None, FEW_ROUNDS, FEW_ROUNDS), strict=True)
            if turbojpeg.path_of(library) is not None
        ),
    ]


def ffcv(crops: str, ahead: int = 3, rounds: int | None = None) -> Contender:
    """The fastest peer."""
    options = {"crops": crops, "threads": THREADS, "ahead": ahead}
    return Contender(FFCV, "ffcv_images", "beton", [options], "ffcv", rounds)


def pillow(crops: str) -> Contender:
    """The usual way: Pillow in a DataLoader."""
    return Contender(PILLOW, "pillow_images", "files", [{"crops": crops, "workers": THREADS}], rounds=FEW_ROUNDS)


def others(crops: str) -> list[Contender]:
    """Peers with other formats or decoders."""
    workers, threads = {"crops": crops, "workers": THREADS}, {"crops": crops, "threads": THREADS}
    return [
        Contender(MOSAIC, "mosaicml_images", "stock", [workers], "streaming", rounds=FEW_ROUNDS),
        Contender(LIT, "lightning_images", "litdata", [workers], "litdata", rounds=FEW_ROUNDS),
        Contender(SPDL, "spdl_images", "stock", [threads], "spdl.io", rounds=FEW_ROUNDS),
    ]


def prepare(directory: Path, kind: Kind, contenders: Sequence[Contender], *, quick: bool) -> None:
    """Write a folder of files, and convert it to every format that the installed contenders read."""
    root = kind.folder(directory)
    files = root / "files"
    payloads = _quick_pictures(kind) if quick else kind.make(kind.different)
    pictures.write_folder(files, payloads, count(kind, quick))
    mean = sum(map(len, payloads)) / len(payloads)
    say(f"  {kind.name}: {count(kind, quick)} files, {len(payloads)} different ones, of {mean / 1e3:.0f} KB on average")
    here = [contender.folder for contender in contenders if is_installed(contender.needs)]
    for form in dict.fromkeys(here):
        if form != "files":
            write(root, form)


def count(kind: Kind, quick: bool) -> int:
    """The number of files."""
    return 16 if quick else kind.count


def _quick_pictures(kind: Kind) -> list[bytes]:
    """A few small pictures."""
    return pictures.large(1, size=(800, 600)) if kind is LARGE else kind.make(4)


def write(root: Path, form: str) -> None:
    """Convert the folder of files to one format."""
    if form in OPTIONS:
        return convert(root / "files", root / form, *OPTIONS[form])
    files = pictures.files(root / "files")
    if form == "beton":
        importlib.import_module("benchmarks.adapters.ffcv_images").write(root / form, files)
    else:
        writer: Any = importlib.import_module(f"benchmarks.adapters.{WRITERS[form]}")
        samples = ({"image": path.read_bytes(), "label": label} for path, label in files)
        writer.write(root / form, IMAGE_AND_LABEL, samples)
    return None


def convert(src: Path, out: Path, *options: str) -> None:
    """Run our converter as a user does."""
    command = [sys.executable, "-m", "mx8shards.convert", "imagefolder", str(src), str(out), "--workers", str(THREADS)]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:])}: ended with {done.returncode}\n{done.stderr[-2000:]}")


def jobs(
    directory: Path, group: str, kind: Kind, contenders: Sequence[Contender], *, quick: bool, seconds: float = 1.5
) -> list[Job]:
    """One job for each contender, reading from the page cache."""
    arguments = {
        "samples": count(kind, quick),
        "batch_size": 2 if quick else kind.batch,
        "seconds": 0.05 if quick else seconds,
    }
    asked = Reading(group, kind.folder(directory), reading.decoded, arguments, best="images_per_s")
    return loader_contenders.jobs(asked, contenders, quick=quick)


RATES = ("images_per_s", "images_per_core_s")


def speed_target(group: str, contender: str, least: float, against: str = FFCV, by: Sequence[str] = RATES) -> Target:
    """A target: at least `least` times the images/s of a peer, or the images per second of a core."""
    wanted = (Wanted(group=group, contender=contender, against=against, number=number, least=least) for number in by)
    return Target(f"{group}: {contender} at least {least:g} × as fast as {against}", tuple(wanted))
