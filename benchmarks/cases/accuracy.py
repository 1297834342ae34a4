"""Does a network reach equal accuracy with the pixels of each decoding path?"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import picture_contenders, pictures, reading
from benchmarks.adapters import ours_images
from benchmarks.crops import with_pillow
from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.picture_contenders import EXACT, PILLOW, PLANES, TILED, UNTOUCHED
from benchmarks.process import Measured, Numbers

NEEDS_BYTES = 1_000_000_000
NOTES = """\
- A network of four convolutions learns ten classes (waves in five directions and two pairs of colours, under a texture)
  from random crops of 64 pixels of JPEGs of 160 × 120, and is tested on centre crops of other pictures. Every round has
  new random seeds for crops and weights, so the spread shows the noise.
- Exact pixels equal Pillow's, so the difference of their accuracies is pure noise.
- Pixels: the mean difference from Pillow's centre crops, in levels of 255.
"""
COLUMNS = (
    Column(title="accuracy, %", number="accuracy_percent", digits=1),
    Column(title="× Pillow's", number="accuracy_percent", digits=3, ratio=True),
    Column(title="pixels", number="pixel_difference", digits=2, spread=False),
)
GROUP = "waves under a texture"
FORMS = {PILLOW: "files", EXACT: "mds", UNTOUCHED: "mds", TILED: "tiled", PLANES: "yuv420"}
EPOCHS = 6
BATCH = 64


def _count(quick: bool) -> dict[str, int]:
    return {"train": 20, "test": 20} if quick else {"train": 2_500, "test": 2_000}


def prepare(directory: Path, *, quick: bool) -> None:
    """Write two folders of pictures, in every format."""
    for number, (split, count) in enumerate(_count(quick).items()):
        payloads = pictures.labelled(count, seed=1_000_000 * (number + 1))
        pictures.write_folder(directory / split / "files", payloads, count)
        for form in sorted({*FORMS.values()} - {"files"}):
            if not quick or form == "mds":
                picture_contenders.write(directory / split, form)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """One training for each decoding path."""
    return [
        Job(
            group=GROUP,
            contender=name,
            run=train,
            arguments={
                "root": str(directory),
                "form": form,
                "exact": name == EXACT,
                "epochs": 1 if quick else EPOCHS,
            },
        )
        for name, form in FORMS.items()
        if not quick or form in ("files", "mds")
    ]


def targets() -> list[Target]:
    """Equal accuracy within the noise, which is 2 or 3 %."""

    def like_pillow(name: str) -> Target:
        wanted = Wanted(group=GROUP, contender=name, against=PILLOW, number="accuracy_percent", least=0.97, most=1.03)
        return Target(f"{name}: within 3 % of Pillow's accuracy", (wanted,))

    return [like_pillow(name) for name in FORMS if name != PILLOW]


# in a process of its own ------------------------------------------------------------------------------------------


def train(root: str, form: str, exact: bool, epochs: int) -> Numbers:
    """Train a network on the crops of one path, and measure its accuracy."""
    torch.set_num_threads(1)  # on shared cores, several threads would busy-wait for each other
    seed = int.from_bytes(os.urandom(3))
    torch.manual_seed(seed)
    with Measured() as whole:
        network = _network()
        optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
        loader = _loader(Path(root) / "train", form, "train", exact, seed)
        steps = epochs * -(-len(pictures.files(Path(root) / "train" / "files")) // BATCH)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
        for _ in range(epochs):
            for images, labels in _batches(loader):
                optimiser.zero_grad()
                torch.autograd.backward(torch.nn.functional.cross_entropy(network(images), labels))
                optimiser.step()
                rates.step()
        network.eval()
        with torch.no_grad():
            tested = _loader(Path(root) / "test", form, "test", exact, seed)
            right = [network(images).argmax(1) == labels for images, labels in _batches(tested)]
    return {
        "accuracy_percent": 100 * float(torch.cat(right).float().mean()),
        "pixel_difference": _difference(Path(root) / "test", form, exact),
        "seed": seed,
        **whole.numbers,
    }


def _network() -> torch.nn.Module:
    layers: list[torch.nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 48), (48, 64)):
        layers += [torch.nn.Conv2d(before, after, 3, 2, 1), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 10))


def _loader(root: Path, form: str, crops: str, exact: bool, seed: int) -> Any:
    adapter = "pillow_images" if form == "files" else "ours_images"
    options = {"workers": picture_contenders.THREADS} if form == "files" else {"exact": exact, "seed": seed}
    return reading.open_loader(adapter, str(root / form), BATCH, {"crops": crops, **options})


def _batches(loader: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of pixels in [-1, 1], channels first, and labels."""
    for batch in loader:
        images = batch["image"] if batch["image"].shape[1] == 3 else batch["image"].permute(0, 3, 1, 2)
        yield images.float() / 127.5 - 1, batch["label"]


def _difference(root: Path, form: str, exact: bool) -> float:
    """The mean difference from Pillow's pixels."""
    if form == "files":
        return 0.0
    found = ours_images.open_loader(root / form, BATCH, "test", exact, shuffle=False)
    means = []
    images = itertools.chain.from_iterable(batch["image"] for batch in found)
    for (path, _), image in zip(pictures.files(root / "files"), images, strict=True):
        with Image.open(path) as picture:
            theirs = with_pillow(picture, "test")["image"].astype(np.int16)
        means.append(np.abs(theirs - image.permute(1, 2, 0).numpy()).mean())
    return float(np.mean(means))
