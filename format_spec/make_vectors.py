"""How are the conformance vectors made?

`python format_spec/make_vectors.py [--out DIR]` writes them, the same bytes on every machine. It needs the standard
library, `blake3` and `xxhash`, and never the package that the vectors test.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from colour_parts import colours
from crop_parts import crops
from invalid_files import invalid_files
from invalid_index import invalid_indices
from order_parts import block_shuffle, order_words, permuted, shuffle
from packet_parts import packet_indices
from path_cases import invalid_paths, valid_paths
from plane_parts import planes, refused
from step_parts import steps, views
from tile_parts import tiles
from valid_cases import all_valid
from vector_parts import BLOCK, DIGESTS, Vector, below, block_digests, draws, purpose_word, uniform
from writer_parts import writer

HERE = Path(__file__).parent / "vectors"
LIMITS = (1, 2, 3, 1000, 1 << 31, 1 << 32)


def randomness() -> dict[str, Any]:
    """Draws of the generator (§11): words in hex, since JSON numbers above 2⁵³ are not safe everywhere."""
    big = 1 << 63
    asked = [
        (0, 0, 0, ""),
        (0, 0, 0, "crop"),
        (0, 0, 1, "crop"),
        (0, 1, 0, "crop"),
        (1, 0, 0, "crop"),
        (17, 3, 123_456_789, "flip"),
        (-1, 0, 0, "crop"),
        ((1 << 64) - 1, 0, 0, "crop"),
        (1 << 64, 5, 5, "größe"),
        (big, -1, big - 1, "a purpose of more than one word"),
        (9176, (1 << 64) + 2, (1 << 40) + 1, "shuffle"),
    ]
    again = [((0, 0, 0, "crop"), 1), ((17, 3, 123_456_789, "flip"), 2), ((0, 0, 1, "crop"), (1 << 62) + 1)]
    once = [(arguments, 0) for arguments in asked]
    return {"rule": "§11", "draws": [one_draw(*arguments, occurrence) for arguments, occurrence in once + again]}


def one_draw(seed: int, epoch: int, sample_id: int, purpose: str, occurrence: int) -> dict[str, Any]:
    words = draws(seed, epoch, sample_id, purpose, 10, occurrence)
    return {
        "seed": str(seed),
        "epoch": str(epoch),
        "sample_id": str(sample_id),
        "occurrence": str(occurrence),
        "purpose": purpose,
        "purpose_word": f"{purpose_word(purpose):016x}",
        "words": [f"{word:016x}" for word in words],
        "uniforms": [uniform(word).hex() for word in words],
        "integers": {str(limit): [below(word, limit) for word in words] for limit in LIMITS},
    }


def permutation() -> dict[str, Any]:
    """Words, permutations and whole orders (§12). What may exceed 2⁵³ is a string."""
    keys = [
        ("shuffle", "", "", 0, 0),
        ("shuffle", "sha256:" + "9f" * 32, "whole", 17, 3),
        ("block_shuffle parts", "größe", "a+b", -1, (1 << 64) + 1),
    ]
    counts = [1, 2, 3, 4, 5, 8, 9, 1000, 4096, 4097, 65_537, 10**9 + 7, (1 << 53) + 1, (1 << 62) - 1, 1 << 62]
    return {
        "rule": "§12",
        "permutations": [words_and_permutations(key, counts) for key in keys],
        "shuffles": [one_shuffle(count, *keys[1][1:3], seed, 2) for count in (0, 1, 6, 50) for seed in (0, 1)],
        "block_shuffles": [
            one_block_shuffle(groups, shards, *keys[1][1:3], seed, 1)
            for groups in shard_groups()
            for shards in (1, 2, 3, 5)
            for seed in (0, 7)
        ],
    }


def shard_groups() -> list[list[list[int]]]:
    """Positions by shard: equal shards, unequal ones with empty ones among them, and a view that jumps between them."""
    sizes = [[4, 4, 4, 4], [0, 7, 1, 0, 12, 3, 2, 0, 5], [1, 1, 1, 1, 1, 1]]
    groups = [[list(range(sum(row[:i]), sum(row[: i + 1]))) for i in range(len(row))] for row in sizes]
    return [*groups, [[1, 5, 9], [0, 2, 8, 10], [], [3, 4, 11], [6, 7]]]


def words_and_permutations(key: tuple[str, str, str, int, int], counts: list[int]) -> dict[str, Any]:
    purpose, snapshot, view, seed, epoch = key
    words = order_words(*key)
    return {
        "purpose": purpose,
        "snapshot": snapshot,
        "view": view,
        "seed": str(seed),
        "epoch": str(epoch),
        "words": [f"{word:016x}" for word in words],
        "values": [one_permutation(count, number, words) for count in counts for number in (0, 1, 1000)],
    }


def one_permutation(count: int, number: int, words: list[int]) -> dict[str, Any]:
    """What stands at a few positions."""
    positions = sorted({i for i in (0, 1, 2, count // 2, count - 2, count - 1) if 0 <= i < count})
    values = {str(position): str(permuted(position, count, number, words)) for position in positions}
    return {"count": str(count), "number": number, "at": values}


def one_shuffle(count: int, snapshot: str, view: str, seed: int, epoch: int) -> dict[str, Any]:
    order = shuffle(count, snapshot, view, seed, epoch)
    return {"snapshot": snapshot, "view": view, "seed": seed, "epoch": epoch, "count": count, "order": order}


def one_block_shuffle(
    groups: list[list[int]], shards: int, snapshot: str, view: str, seed: int, epoch: int
) -> dict[str, Any]:
    order = block_shuffle(groups, shards, snapshot, view, seed, epoch)
    asked = {"snapshot": snapshot, "view": view, "seed": seed, "epoch": epoch}
    return {**asked, "groups": groups, "shards": shards, "order": order}


def blocks() -> dict[str, Any]:
    """Block digests (§10.5) of files too large to store: byte i of each is i mod 251."""
    sizes = [(BLOCK, size) for size in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 7)]
    sizes += [(block, size) for block in (1 << 12, 1 << 14) for size in (0, block, block + 1, 2 * block + 7)]
    pattern = bytes(range(251)) * (2 * BLOCK // 251 + 2)
    files = [
        {"bytes": size, "block_bytes": block, "digests": [d.hex() for d in block_digests(pattern[:size], block)]}
        for block, size in sizes
    ]
    return {"rule": "§10.5", "byte": "i mod 251", "files": files}


def digests() -> dict[str, Any]:
    """Every known hash (§7.1) of a few small inputs."""
    inputs = [b"", b"abc", bytes(range(256))]
    return {
        "rule": "§7.1",
        "inputs": [data.hex() for data in inputs],
        "hashes": {name: [digest(data) for data in inputs] for name, digest in sorted(DIGESTS.items())},
    }


def write_vector(folder: Path, vector: Vector) -> None:
    for name, data in vector.contents.items():
        path = folder / vector.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for name, target in vector.links.items():
        path = folder / vector.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def write_group(folder: Path, vectors: list[Vector]) -> None:
    """This group of vectors and nothing else: folders of vectors that are gone, go."""
    names = [vector.name for vector in vectors]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ValueError(f"two vectors are called {sorted(doubled)}")
    shutil.rmtree(folder, ignore_errors=True)
    for vector in vectors:
        write_vector(folder, vector)


def write_all(out: Path) -> None:
    write_group(out / "valid", [*all_valid(), *valid_paths()])
    write_group(out / "invalid", [*invalid_indices(), *invalid_files(), *invalid_paths()])
    made = {"randomness": randomness(), "permutation": permutation(), "blocks": blocks(), "hashes": digests()}
    made["writer"] = writer()
    made |= {
        "tiles": tiles(),
        "packets": packet_indices(),
        "planes": {"pictures": planes(), "refused": refused()},
        "views": views(),
        "steps": steps(),
        "crops": crops(),
        "colours": colours(),
    }
    for name, tables in made.items():
        (out / f"{name}.json").write_text(json.dumps(tables, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="where to write (default: beside this script)")
    write_all(parser.parse_args().out)


if __name__ == "__main__":
    main()
