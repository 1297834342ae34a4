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

from invalid_files import invalid_files
from invalid_index import invalid_indices
from valid_cases import all_valid
from vector_parts import BLOCK, DIGESTS, Vector, below, block_digests, draws, purpose_word, uniform

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
    return {"rule": "§11", "draws": [one_draw(*arguments) for arguments in asked]}


def one_draw(seed: int, epoch: int, sample_id: int, purpose: str) -> dict[str, Any]:
    words = draws(seed, epoch, sample_id, purpose, 10)
    return {
        "seed": str(seed),
        "epoch": str(epoch),
        "sample_id": str(sample_id),
        "purpose": purpose,
        "purpose_word": f"{purpose_word(purpose):016x}",
        "words": [f"{word:016x}" for word in words],
        "uniforms": [uniform(word).hex() for word in words],
        "integers": {str(limit): [below(word, limit) for word in words] for limit in LIMITS},
    }


def blocks() -> dict[str, Any]:
    """Block digests (§10.5) of files too large to store: byte i of each is i mod 251."""
    sizes = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 7)
    pattern = bytes(range(251)) * (max(sizes) // 251 + 1)
    files = [{"bytes": size, "digests": [d.hex() for d in block_digests(pattern[:size])]} for size in sizes]
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
    write_group(out / "valid", all_valid())
    write_group(out / "invalid", [*invalid_indices(), *invalid_files()])
    for name, tables in (("randomness", randomness()), ("blocks", blocks()), ("hashes", digests())):
        (out / f"{name}.json").write_text(json.dumps(tables, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="where to write (default: beside this script)")
    write_all(parser.parse_args().out)


if __name__ == "__main__":
    main()
