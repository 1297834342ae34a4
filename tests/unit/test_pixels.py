"""Are pixel statistics equal to a reference implementation's, and are damaged pictures listed?"""

from __future__ import annotations

import io
import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import mx8shards as mx8
from mx8shards.cli import main
from mx8shards.errors import FormatError, SchemaError
from mx8shards.media import pixels, tally
from mx8shards.media.decoding import decode_jpeg
from mx8shards.media.pixels import PixelSummary, picture_column, summarize_pixels
from mx8shards.media.tally import sums
from mx8shards.media.yuv420 import encode
from tests.jpegs import encoded, noise, resampled

SIZES = [(7, 5), (64, 48), (1, 1), (33, 70), (7, 5)]


def picture(i: int) -> Image.Image:
    height, width = SIZES[i % len(SIZES)]
    rng = np.random.default_rng(i)
    smooth = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)).resize((width, height))
    modes = ("RGB", "RGB", "L", "RGBA", "P", "1", "LA")
    return smooth.convert(modes[i % len(modes)])


def file_of(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "JPEG" and image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    image.save(file, kind)
    return file.getvalue()


def value(i: int, encoding: str) -> Any:
    """Values for a column of this encoding; half of those of `bytes` are PNGs."""
    if encoding == "pil":
        return picture(i) if picture(i).mode != "P" else picture(i).convert("RGB")
    if encoding == "bytes":
        return file_of(picture(i), ("JPEG", "PNG")[i % 2])
    return picture(i).convert("RGB")


def write(root: Path, count: int = 30, encoding: str = "bytes", **options: Any) -> Path:
    with mx8.Writer(root, columns={"image": encoding, "label": "int"}, size_limit="8kb", **options) as writer:
        for i in range(count):
            writer.write({"image": value(i, encoding), "label": i % 3})
    return root


def statistics_of(root: Path, **options: Any) -> PixelSummary:
    with mx8.Dataset(root) as dataset:
        return summarize_pixels(dataset, **options)


def reference_pixels(root: Path, positions: list[int]) -> tuple[np.ndarray, np.ndarray, Counter[tuple[int, int]]]:
    """All pixels in one array, by Pillow."""
    with mx8.Dataset(root) as dataset:
        found = [dataset[i]["image"] for i in positions]
    images = [Image.open(io.BytesIO(each)) if isinstance(each, bytes) else each for each in found]
    plain = [np.asarray(each.convert("RGB")) for each in images]
    every = np.concatenate([each.reshape(-1, 3) for each in plain]) / 255
    return every.mean(axis=0), every.std(axis=0), Counter(each.shape[:2] for each in plain)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("encoding", ["bytes", "jpeg", "png", "pil"])
def test_means_deviations_and_sizes_equal_the_reference(tmp_path: Path, encoding: str, threads: int) -> None:
    root = write(tmp_path / "data", encoding=encoding)
    mean, std, sizes = reference_pixels(root, list(range(30)))
    found = statistics_of(root, threads=threads)
    assert (found.column, found.samples, found.pictures, found.refused) == ("image", 30, 30, ())
    assert found.pixels == sum(height * width * count for (height, width), count in sizes.items())
    assert found.mean == pytest.approx(mean, abs=1e-12)
    assert found.std == pytest.approx(std, abs=1e-12)
    assert {(height, width): count for height, width, count in found.sizes} == sizes
    counts = [count for _, _, count in found.sizes]
    assert counts == sorted(counts, reverse=True)


def test_the_number_of_threads_and_runs_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "data")
    whole = statistics_of(root)
    monkeypatch.setattr(pixels, "_RUN", 4)
    monkeypatch.setattr(pixels, "_LABELS", 7)
    monkeypatch.setattr(tally, "_ROWS", 5)
    monkeypatch.setattr(tally, "_PARALLEL_BYTES", 2_000)
    told: list[tuple[int, int]] = []
    assert statistics_of(root, threads=3, progress=lambda *done: told.append(done)) == whole
    assert told == [(min(done, 30), 30) for done in range(4, 34, 4)]


@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))
def test_sums_are_exact(levels: np.ndarray) -> None:
    wide = levels.reshape(-1, 3).astype(object)
    assert sums(levels) == (wide.sum(axis=0).tolist(), (wide * wide).sum(axis=0).tolist())


def test_sums_of_the_tallest_white_picture_are_exact() -> None:
    white = np.full((70_000, 2, 3), 255, np.uint8)
    assert sums(white) == ([255 * 140_000] * 3, [65_025 * 140_000] * 3)


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "planes"])
def test_large_pictures_are_decoded_one_at_a_time_in_little_more_memory_than_their_pixels(
    kind: str, tmp_path: Path
) -> None:
    file = encoded(noise(3_000, 2_000), quality=30, progressive=kind == "progressive JPEG")
    payload = encode(file) if kind == "planes" else file
    with mx8.Writer(tmp_path, columns={"image": "bytes"}) as writer:
        for i in range(130):  # three runs of samples, so up to three threads
            writer.write({"image": payload if i % 40 == 0 else b""})
    tracemalloc.start()
    try:
        found = statistics_of(tmp_path, threads=3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.pictures == 4
    assert peak < 18_000_000 + 2 * len(payload) + (6 << 20)


def test_a_tiny_deviation_is_exact() -> None:
    found = tally.Tally(pixels=10**12, levels=[200 * 10**12 + 1] * 3, squares=[200 * 200 * 10**12 + 401] * 3)
    assert found.std() == pytest.approx([1e-6 / 255] * 3, rel=1e-6)


def test_a_subset_is_spread_evenly_and_has_at_least_one_picture(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    found = statistics_of(root, share=0.2)
    mean, _, sizes = reference_pixels(root, [0, 5, 10, 15, 20, 25])
    assert found.samples == 6
    assert found.mean == pytest.approx(mean, abs=1e-12)
    assert {(height, width): count for height, width, count in found.sizes} == sizes
    assert found.classes == ((0, None, 2), (1, None, 2), (2, None, 2))
    assert statistics_of(root, share=0.0001).samples == 1


@pytest.mark.parametrize("encoding", ["int", "uint8", "int32", "uint64"])
def test_classes_are_named_by_the_metadata(tmp_path: Path, encoding: str) -> None:
    metadata = {"classes": ["cat", "dog"]}
    with mx8.Writer(tmp_path, columns={"image": "bytes", "label": encoding}, metadata=metadata) as writer:
        for i in range(10):
            writer.write({"image": value(1, "bytes"), "label": 2 * i % 3})
    assert statistics_of(tmp_path).classes == ((0, "cat", 4), (1, "dog", 3), (2, None, 3))


@pytest.mark.parametrize("metadata", [None, {"classes": {"cat": 0}}, {"classes": 3}])
def test_classes_without_names_are_numbers(tmp_path: Path, metadata: Any) -> None:
    found = statistics_of(write(tmp_path / "data", 6, metadata=metadata)).classes
    assert found == ((0, None, 2), (1, None, 2), (2, None, 2))


def test_columns_of_many_values_or_other_types_are_not_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, label in (("float32", 0.5), ("str", "cat"), ("ndarray:int64:2", np.zeros(2, np.int64))):
        root = tmp_path / encoding.replace(":", "-")
        with mx8.Writer(root, columns={"image": "bytes", "label": encoding}) as writer:
            writer.write({"image": value(1, "bytes"), "label": label})
        assert statistics_of(root).classes is None
    monkeypatch.setattr(pixels, "MOST_CLASSES", 2)
    assert statistics_of(write(tmp_path / "data")).classes is None


def damaged() -> dict[str, bytes]:
    jpeg, png = file_of(picture(1), "JPEG"), file_of(picture(1), "PNG")
    bomb = bytearray(jpeg)
    at = bomb.index(b"\xff\xc0") + 5
    bomb[at : at + 4] = b"\xff\xdc\xff\xdc"
    return {
        "no bytes": b"",
        "any byte": b"any bytes at all",
        "JPEG": jpeg[: len(jpeg) // 2],
        "a JPEG": jpeg[:10],
        "PNG|truncated|whole": png[: len(png) // 2],
        "65500 x 65500": bytes(bomb),
        "CMYK": file_of_cmyk(),
        "I;16": file_of(Image.fromarray(np.full((4, 4), 999, np.uint16)), "PNG"),
    }


def file_of_cmyk() -> bytes:
    file = io.BytesIO()
    picture(1).convert("CMYK").save(file, "JPEG")
    return file.getvalue()


def test_damaged_pictures_are_counted_and_listed_and_the_others_measured(tmp_path: Path) -> None:
    write(tmp_path / "good", 30)
    bad = damaged()
    with mx8.Writer(tmp_path / "data", columns={"image": "bytes"}) as writer:
        for i in range(30):
            writer.write({"image": value(i, "bytes")})
            if i % 3 == 0 and i // 3 < len(bad):
                writer.write({"image": list(bad.values())[i // 3]})
    good, found = statistics_of(tmp_path / "good"), statistics_of(tmp_path / "data", threads=2)
    assert (found.samples, found.pictures) == (30 + len(bad), 30)
    assert (found.mean, found.std, found.sizes) == (good.mean, good.std, good.sizes)
    assert [sample for sample, _ in found.refused] == [1 + 4 * i for i in range(len(bad))]
    for words, (_, reason) in zip(bad, found.refused, strict=True):
        assert any(word in reason for word in words.split("|")), reason


def statistics_of_one(root: Path, data: bytes) -> PixelSummary:
    with mx8.Writer(root, columns={"image": "bytes"}) as writer:
        writer.write({"image": data})
    return statistics_of(root)


@pytest.mark.parametrize("luma", [0x14, 0x41])
def test_jpegs_of_every_supported_sampling_are_measured(tmp_path: Path, luma: int) -> None:
    """simplejpeg decodes luma sampled 1 x 4, but has no name for it."""
    data = resampled(encoded(noise(64, 64), subsampling="4:2:0"), [luma, 0x11, 0x11])
    found = statistics_of_one(tmp_path / "data", data)
    assert found.sizes == ((64, 64, 1),)
    assert found.mean == pytest.approx(tuple(decode_jpeg(data, 0, 0).mean(axis=(0, 1)) / 255))


@pytest.mark.parametrize("luma", [0x24, 0x13])
def test_a_jpeg_of_an_unsupported_sampling_is_listed(tmp_path: Path, luma: int) -> None:
    data = resampled(encoded(noise(64, 64), subsampling="4:2:0"), [luma, 0x11, 0x11])
    (refused,) = statistics_of_one(tmp_path / "data", data).refused
    assert "subsampling" in refused[1]


def test_only_the_first_of_very_many_damaged_pictures_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "MOST_NAMED", 5)
    monkeypatch.setattr(pixels, "_RUN", 3)
    with mx8.Writer(tmp_path, columns={"image": "bytes"}) as writer:
        for _ in range(20):
            writer.write({"image": b"none"})
    found = statistics_of(tmp_path, threads=2)
    assert (found.samples, found.pictures, found.pixels, found.mean, found.std) == (20, 0, 0, None, None)
    assert [sample for sample, _ in found.refused] == [0, 1, 2, 3, 4]
    assert found.sizes == ()


def test_a_damaged_shard_is_an_error_and_not_a_damaged_picture(tmp_path: Path) -> None:
    write(tmp_path / "data")
    shard = next(iter(sorted((tmp_path / "data").glob("shard.*"))))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(FormatError, match=shard.name):
        statistics_of(tmp_path / "data", threads=2)


def test_an_empty_dataset_has_no_pixel_statistics(tmp_path: Path) -> None:
    found = statistics_of(write(tmp_path / "data", 0))
    assert (found.samples, found.pictures, found.mean, found.std, found.sizes) == (0, 0, None, None, ())
    assert found.classes == ()


def test_planes_are_measured_as_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes have subsampled chroma, so statistics are only approximately equal."""
    for name, change in (("files", bytes), ("planes", encode)):
        with mx8.Writer(tmp_path / name, columns={"image": "bytes"}) as writer:
            for i in range(10):
                writer.write({"image": change(file_of(picture(i).convert("RGB"), "JPEG"))})
            if name == "planes":
                writer.write({"image": change(file_of(picture(1), "JPEG"))[:-1]})
    files, planes = statistics_of(tmp_path / "files"), statistics_of(tmp_path / "planes")
    assert (planes.samples, planes.pictures, planes.sizes, planes.pixels) == (11, 10, files.sizes, files.pixels)
    monkeypatch.setattr(tally, "_STRIP_BYTES", 1)
    assert statistics_of(tmp_path / "planes") == planes
    assert planes.mean == pytest.approx(files.mean, abs=1 / 255)
    assert planes.std == pytest.approx(files.std, abs=3 / 255)
    assert planes.refused == ((10, planes.refused[0].reason),)


COLUMNS = {
    "image": {"image": "bytes", "caption": "bytes", "label": "int"},
    "photo": {"image": "bytes", "photo": "jpeg"},
    "only": {"only": "bytes", "label": "int"},
    "p": {"p": "pil", "raw": "bytes"},
}


@pytest.mark.parametrize("name", COLUMNS)
def test_the_only_possible_column_of_pictures_is_found(name: str) -> None:
    assert picture_column(COLUMNS[name], None) == name


def test_the_column_of_pictures_can_be_given() -> None:
    assert picture_column(COLUMNS["image"], "caption") == "caption"


@pytest.mark.parametrize(
    ("columns", "wanted", "says"),
    [
        ({"a": "jpeg", "b": "png"}, None, "pictures: expected one column, got 2 possible ones among a, b"),
        ({"a": "bytes", "b": "bytes"}, None, "got 2 possible ones"),
        ({"x": "int"}, None, "got 0 possible ones among x"),
        ({"x": "int"}, "x", "column 'x': expected one of jpeg, png, pil, bytes, got 'int'"),
        ({"x": "int"}, "y", "column 'y': expected one of jpeg, png, pil, bytes, got the columns x"),
    ],
)
def test_an_ambiguous_or_missing_column_of_pictures_is_an_error(
    columns: dict[str, str], wanted: str | None, says: str
) -> None:
    with pytest.raises(SchemaError, match=says):
        picture_column(columns, wanted)


# the command ----------------------------------------------------------------------------------------------------------

Capture = pytest.CaptureFixture[str]


def test_the_command_prints_the_statistics(tmp_path: Path, capsys: Capture) -> None:
    root = write(tmp_path / "data", metadata={"classes": ["cat", "dog", "[red]"]})
    found = statistics_of(root)
    assert main(["summary", "--pixels", str(root)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "pictures\t30 decoded, of 30 tried" in out
    assert "mean\t" + "  ".join(f"{value:.6f}" for value in found.mean or ()) in out
    assert "7 x 5\t12\t" in out
    assert "2 [red]\t10\t" in out
    assert main(["summary", "--pixels", "--json", str(root)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["samples"] == 30
    assert told["pixels"] == json.loads(json.dumps(found.to_json()))
    assert told["pixels"]["classes"][0] == {"label": 0, "name": "cat", "samples": 10}
    assert main(["summary", str(root), "--json"]) == 0
    assert "pixels" not in json.loads(capsys.readouterr().out)


def test_the_command_ends_with_exit_code_4_and_lists_damaged_pictures(tmp_path: Path, capsys: Capture) -> None:
    with mx8.Writer(tmp_path, columns={"image": "bytes", "caption": "bytes"}) as writer:
        for i in range(3):
            writer.write({"image": value(1, "bytes") if i else b"none", "caption": b"none"})
    assert main(["summary", "--pixels", str(tmp_path)]) == 4
    out, err = capsys.readouterr()
    assert "refused\tsample 0: expected a picture" in out
    assert err == "1 of 3 pictures could not be decoded\n"
    assert main(["summary", "--pixels", str(tmp_path), "--column", "caption", "--json"]) == 4
    told = json.loads(capsys.readouterr().out)["pixels"]
    assert [each["sample"] for each in told["refused"]] == [0, 1, 2]
    assert told["mean"] is None


def test_the_command_accepts_a_subset(tmp_path: Path, capsys: Capture) -> None:
    root = write(tmp_path / "data")
    assert main(["summary", "--pixels", str(root), "--subset", "10%", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pixels"]["samples"] == 3


def test_many_sizes_are_shortened_in_text_and_complete_in_json(tmp_path: Path, capsys: Capture) -> None:
    with mx8.Writer(tmp_path, columns={"image": "png"}) as writer:
        for i in range(30):
            writer.write({"image": Image.new("RGB", (i + 1, 2))})
    assert main(["summary", "--pixels", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "and 10 more, with 10 pictures: --json has all" in out
    assert "height: from 2 to 2\n2 to 2\t30\t" in out
    assert "width: from 1 to 30\n1 to 2\t2\t" in out
    assert out.count("\n29 to 30\t2\t") == 1
    assert main(["summary", "--pixels", str(tmp_path), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["pixels"]["sizes"]) == 30


@pytest.mark.parametrize("option", [("--column", "image"), ("--subset", "5%"), ("--pixels", "--subset", "0%")])
def test_options_that_need_pixels_are_a_usage_error_without_it(tmp_path: Path, capsys: Capture, option: Any) -> None:
    assert main(["summary", str(write(tmp_path / "data", 2)), *option]) == 2
    assert "subset" in capsys.readouterr().err


def test_a_column_of_pickles_beside_the_pictures_is_not_read(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path, columns={"image": "bytes", "x": "pkl"}, allow_pickle=True) as writer:
        writer.write({"image": value(1, "bytes"), "x": [3]})
    assert main(["summary", "--pixels", str(tmp_path)]) == 0
