"""What does it look like when a dataset is written, verified and read back, and a folder of pictures trained on?

(`make demo`)
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mx8shards as mx8
from benchmarks import page_cache, pictures

SAMPLES = 1_000
PICTURES = 2_000
SAMPLE_BYTES = 100_000  # about a photo at 400 × 300 pixels


def main() -> None:
    """Write a small dataset, let the command line check it, and read it back; then a folder of pictures, decoded."""
    with tempfile.TemporaryDirectory(prefix="mx8shards-demo-") as directory:
        root = f"{directory}/train"
        write(root)
        command_line("info", root)
        command_line("verify", "--data", root)
        read(root)
        train(directory)


def write(root: str) -> None:
    """The dataset, from noise that no compression or deduplication makes smaller."""
    noise = random.Random(17)  # noqa: S311 - pixels, not keys
    images = [noise.randbytes(SAMPLE_BYTES) for _ in range(SAMPLES)]
    start = time.perf_counter()
    with mx8.Writer(root, columns={"image": "bytes", "label": "int"}) as writer:
        for label, image in enumerate(images):
            writer.write({"image": image, "label": label})
    report("written, hashed and synced to disk", time.perf_counter() - start)
    print(f"  snapshot {writer.snapshot}")


def read(root: str) -> None:
    """All samples in order, decoded, with every label checked. What was just written lies in the page cache."""
    start = time.perf_counter()
    with mx8.Dataset(root) as dataset:
        for position, sample in enumerate(dataset):
            if sample["label"] != position or len(sample["image"]) != SAMPLE_BYTES:
                raise SystemExit(f"sample {position} came back as {sample['label']}")
    report("read back one by one, from the page cache", time.perf_counter() - start)


def train(directory: str) -> None:
    """A folder of pictures, converted, and the crops that a training would get: from the disk, then from memory."""
    files, root = f"{directory}/pictures", f"{directory}/converted"
    print(f"\n{PICTURES:,} pictures are drawn", flush=True)
    pictures.write_folder(Path(files), pictures.generated(PICTURES // 4), PICTURES)
    command_line("convert", "imagefolder", files, root, "--workers", str(len(os.sched_getaffinity(0))))
    with crops(root) as loader:
        loader.warm_up()  # compiles the kernels, which a machine does once
    page_cache.drop(Path(root))
    with crops(root) as loader:
        for epoch in ("from the disk", "from memory", "from memory again"):
            start = time.perf_counter()
            delivered = sum(len(batch["label"]) for batch in loader)
            seconds = time.perf_counter() - start
            print(f"random crops of 224 pixels, {epoch}: {delivered:,} images in {seconds:.2f} s")
            print(f"  {delivered / seconds:,.0f} images/s")


def crops(root: str) -> mx8.Loader:
    """A loader as a training has it."""
    return mx8.Loader(
        mx8.Dataset(root),
        batch_size=64,
        shuffle=True,
        seed=17,
        columns=["image", "label"],
        decode={"image": mx8.RandomResizedCrop(224)},
    )


def command_line(*arguments: str) -> None:
    """Run `mx8shards` as a user does and show what it says."""
    print(f"\n$ mx8shards {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "mx8shards", *arguments], check=True)
    print()


def report(what: str, seconds: float) -> None:
    """One line with both rates: samples and bytes."""
    megabytes = SAMPLES * SAMPLE_BYTES / 1e6
    print(f"{what}: {SAMPLES:,} samples, {megabytes:,.0f} MB in {seconds:.3f} s")
    print(f"  {SAMPLES / seconds:,.0f} samples/s, {megabytes / seconds:,.0f} MB/s")


if __name__ == "__main__":
    main()
