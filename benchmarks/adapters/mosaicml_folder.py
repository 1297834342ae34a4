"""How is a folder of pictures converted to MDS with mosaicml-streaming? (python -m benchmarks.adapters.mosaicml_folder)

As in its examples: a pool of processes writes parts with MDSWriter; then the indices are merged.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

from PIL import Image

from benchmarks import pictures
from benchmarks.adapters.streaming_stub import import_streaming

streaming = import_streaming()  # imported before the workers are forked, so that they share it

COLUMNS = {"image": "bytes", "label": "int"}


def write_part(out: str, files: list[tuple[Path, int]], decode: bool) -> None:
    """Write the part of one worker."""
    with streaming.MDSWriter(out=out, columns=COLUMNS, size_limit="64mb") as writer:
        for path, label in files:
            if decode:
                with Image.open(path) as picture:
                    picture.load()
            writer.write({"image": path.read_bytes(), "label": label})


def main() -> None:
    """Convert FILES to OUT; the arguments are FILES OUT WORKERS [--decode]."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", type=Path)
    parser.add_argument("out")
    parser.add_argument("workers", type=int)
    parser.add_argument("--decode", action="store_true")
    options = parser.parse_args()
    files = pictures.files(options.files)
    share = -(-len(files) // options.workers)
    parts = [(f"{options.out}/{k}", files[k * share : (k + 1) * share], options.decode) for k in range(options.workers)]
    with multiprocessing.Pool(options.workers) as pool:
        pool.starmap(write_part, parts)
    streaming.base.util.merge_index(options.out, keep_local=True)


if __name__ == "__main__":
    main()
