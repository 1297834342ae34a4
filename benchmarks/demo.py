"""A demonstration (`make demo`): write, verify and read a dataset, and load random crops of a folder of pictures."""

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
SAMPLE_BYTES = 100_000  # the size of a photo of about 400 × 300 pixels


def main() -> None:
    """Write a small dataset, verify it with the command line and read it; then convert and load pictures."""
    with tempfile.TemporaryDirectory(prefix="mx8shards-demo-") as directory:
        root = f"{directory}/train"
        write(root)
        command_line("info", root)
        command_line("verify", "--data", root)
        read(root)
        train(directory)


def write(root: str) -> None:
    """Write samples of noise, because noise cannot be compressed or deduplicated."""
    noise = random.Random(17)  # noqa: S311 - pixels, not keys
    images = [noise.randbytes(SAMPLE_BYTES) for _ in range(SAMPLES)]
    start = time.perf_counter()
    with mx8.Writer(root, columns={"image": "bytes", "label": "int"}) as writer:
        for label, image in enumerate(images):
            writer.write({"image": image, "label": label})
    report("written, hashed and synced to disk", time.perf_counter() - start)
    print(f"  snapshot {writer.snapshot}")


def read(root: str) -> None:
    """Read and decode all samples in order, and check every label. The files are in the page cache."""
    start = time.perf_counter()
    with mx8.Dataset(root) as dataset:
        for position, sample in enumerate(dataset):
            if sample["label"] != position or len(sample["image"]) != SAMPLE_BYTES:
                raise SystemExit(f"sample {position} came back as {sample['label']}")
    report("read back one by one, from the page cache", time.perf_counter() - start)


def train(directory: str) -> None:
    """Convert a folder of pictures and load random crops, first from the disk, then from memory."""
    files, root = f"{directory}/pictures", f"{directory}/converted"
    print(f"\ngenerating {PICTURES:,} pictures", flush=True)
    pictures.write_folder(Path(files), pictures.generated(PICTURES // 4), PICTURES)
    command_line("convert", "imagefolder", files, root, "--workers", str(len(os.sched_getaffinity(0))))
    with crops(root) as loader:
        loader.warm_up()  # compiles the kernels, once per machine
    page_cache.drop(Path(root))
    with crops(root) as loader:
        for epoch in ("from the disk", "from memory", "from memory again"):
            start = time.perf_counter()
            delivered = sum(len(batch["label"]) for batch in loader)
            seconds = time.perf_counter() - start
            print(f"random crops of 224 pixels, {epoch}: {delivered:,} images in {seconds:.2f} s")
            print(f"  {delivered / seconds:,.0f} images/s")


def crops(root: str) -> mx8.Loader:
    """A loader as in a training script."""
    return mx8.Loader(
        mx8.Dataset(root),
        batch_size=64,
        shuffle=True,
        seed=17,
        columns=["image", "label"],
        decode={"image": mx8.RandomResizedCrop(224)},
    )


def command_line(*arguments: str) -> None:
    """Run `mx8shards` as a user does and show its output."""
    print(f"\n$ mx8shards {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "mx8shards", *arguments], check=True)
    print()


def report(what: str, seconds: float) -> None:
    """Print one line with samples/s and MB/s."""
    megabytes = SAMPLES * SAMPLE_BYTES / 1e6
    print(f"{what}: {SAMPLES:,} samples, {megabytes:,.0f} MB in {seconds:.3f} s")
    print(f"  {SAMPLES / seconds:,.0f} samples/s, {megabytes / seconds:,.0f} MB/s")


if __name__ == "__main__":
    main()
