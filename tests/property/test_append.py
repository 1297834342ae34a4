"""Does appending a folder in pieces give the samples of one conversion of the whole folder?

For any division of the files into pieces, in any order, `append` gives each path once, with its text and the name of
its class. The order of samples, the labels and so the snapshot's id depend on the order of the pieces; equal pieces
give equal ids. With a split, each file is in the split that a single conversion would put it in.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.convert import convert_in_parts
from tests.example_counts import parametrize_count
from tests.fast_directory import FAST_ROOT
from tests.text_folders import TextFolder, write_texts

RECIPE = str(Path(__file__).parent.parent / "text_folders.py")
NAMES = [f"{folder}/{i}.txt" for folder in ("bee", "ant", "cat") for i in range(4)]
BAD = {"cat/3.txt": "bad", "ant/0.txt": "bad"}
SPLIT = {"train": 0.6, "val": 0.4}

arrivals = st.lists(st.integers(0, 3), min_size=len(NAMES), max_size=len(NAMES)).flatmap(
    lambda numbers: st.permutations(
        [[name for name, number in zip(NAMES, numbers, strict=True) if number == i] for i in sorted(set(numbers))]
    )
)


def samples(root: Path) -> tuple[list[str], list[tuple[str, str, str]]]:
    """The classes; path, text and class of every sample, sorted."""
    with mx8.Dataset(root) as dataset:
        classes = dataset.metadata["classes"]
        return classes, sorted((s["path"], s["text"], classes[s["label"]]) for s in dataset)


def appended(src: Path, out: Path, pieces: Sequence[Sequence[str]]) -> str:
    """Append all pieces. Returns the final id. Asserts after each step that labels keep their meaning."""
    before: list[str] = []
    for names in pieces:
        write_texts(src, names, BAD)
        if not out.exists() and all(name in BAD for name in names):
            continue  # a dataset cannot begin with only rejects
        mx8.convert_from(RECIPE, src, out, append=True)
        classes, _ = samples(out)
        assert classes[: len(before)] == before
        before = classes
    return mx8.convert_from(RECIPE, src, out, append=True).snapshot or ""


@parametrize_count(8)
def test_a_folder_appended_in_pieces_gives_the_samples_of_one_conversion(count: int) -> None:
    @settings(max_examples=count)
    @given(pieces=arrivals)
    def check(pieces: list[list[str]]) -> None:
        with tempfile.TemporaryDirectory(dir=FAST_ROOT) as directory:
            root, usual = Path(directory), convert_in_parts.PART_ITEMS
            convert_in_parts.PART_ITEMS = 3
            try:
                mx8.convert_from(TextFolder(write_texts(root / "whole", NAMES, BAD)), out=root / "at once")
                one = appended(root / "src", root / "out", pieces)
                convert_in_parts.PART_ITEMS = 5  # shards differ, samples do not
                appended(root / "other", root / "parts", pieces)
                convert_in_parts.PART_ITEMS = 3
                assert appended(root / "again", root / "same", pieces) == one
            finally:
                convert_in_parts.PART_ITEMS = usual
            classes, found = samples(root / "at once")
            for name in ("out", "parts"):
                grown, got = samples(root / name)
                assert got == found
                assert sorted(grown) == classes

    check()


@parametrize_count(6)
def test_files_appended_in_pieces_get_the_splits_of_one_conversion(count: int) -> None:
    @settings(max_examples=count)
    @given(pieces=arrivals, seed=st.integers(0, 3))
    def check(pieces: list[list[str]], seed: int) -> None:
        options: dict[str, Any] = {"split": SPLIT, "seed": seed}
        first = [f"bee/first{i}.txt" for i in range(12)]  # so that no split is empty at first
        with tempfile.TemporaryDirectory(dir=FAST_ROOT) as directory:
            root = Path(directory)
            mx8.convert_from(RECIPE, write_texts(root / "whole", [*first, *NAMES]), root / "at once", **options)
            mx8.convert_from(RECIPE, write_texts(root / "src", first), root / "out", **options)
            for names in pieces:
                mx8.convert_from(RECIPE, write_texts(root / "src", names), root / "out", append=True, **options)
            grown = [samples(root / "out" / name)[0] for name in SPLIT]
            assert grown[0] == grown[1]
            for name in SPLIT:
                assert samples(root / "out" / name)[1] == samples(root / "at once" / name)[1]

    check()
