"""Does our reader read the specification's valid vectors and refuse the invalid ones?"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mx8shards as mx8
from mx8shards.format import hashing, randomness
from mx8shards.format.file_blocks import block_digests
from mx8shards.kernels import jpeg, jpeg_tiles
from mx8shards.media import tiles
from tests.strategies import same

VECTORS = Path(__file__).resolve().parents[2] / "format_spec" / "vectors"
REASONS = {"FormatError": "format", "IntegrityError": "integrity", "DatasetNotFoundError": "missing or unreadable"}


def vectors(kind: str, *whens: str) -> list[Any]:
    folders = sorted((VECTORS / kind).iterdir())
    found = [folder for folder in folders if not whens or expected(folder)["when"] in whens]
    assert found, f"no vectors in {VECTORS / kind}"
    return [pytest.param(folder, id=folder.name) for folder in found]


def expected(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "expected.json").read_bytes())  # type: ignore[no-any-return]


@pytest.fixture
def vector(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The link of a copy (decompression writes beside the data), the options to open it, and the expectation."""
    wanted = expected(request.param)
    for module in wanted["needs"]:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    copy = shutil.copytree(request.param, tmp_path / "vector", symlinks=True)
    return f"{copy / wanted['directory']}{wanted['link']}", wanted["options"], wanted


@pytest.mark.parametrize("vector", vectors("valid"), indirect=True)
def test_valid_vector_gives_exactly_its_samples(vector: Any) -> None:
    link, options, wanted = vector
    with mx8.Dataset(link, **options) as dataset:
        assert len(dataset) == wanted["samples"] == len(wanted["values"]) == sum(wanted["shards"])
        assert dataset.columns == wanted["columns"]
        assert dataset.snapshot == wanted["snapshot"]
        assert dataset.sealed == wanted["sealed"]
        assert dataset.metadata == wanted["metadata"]
        for sample, values in zip(dataset, wanted["values"], strict=True):
            assert sample.keys() == values.keys()
            for name, value in values.items():
                assert is_as_expected(sample[name], value), (name, sample[name], value)


@pytest.mark.parametrize("vector", vectors("valid"), indirect=True)
def test_columns_and_payloads_of_a_valid_vector_match_its_samples(vector: Any) -> None:
    link, options, wanted = vector
    with mx8.Dataset(link, **options, verify="shard") as dataset:
        for name in wanted["columns"]:
            decode = dataset.picked([name]).coders[0].decode
            values = dataset.column(name)
            assert len(values) == len(dataset)
            for i, value in enumerate(values):
                one = dataset[i][name]
                assert same(value.item() if isinstance(value, np.generic) else value, one)
                assert same(decode(dataset.payload(i, name)), one)


@pytest.mark.parametrize("vector", vectors("valid"), indirect=True)
def test_verify_accepts_every_valid_vector(vector: Any) -> None:
    link, _, wanted = vector
    report = mx8.verify(link, data=True)
    assert report.damage == ()
    assert report.sealed == wanted["sealed"]


@pytest.mark.parametrize("vector", vectors("invalid", "open"), indirect=True)
def test_invalid_vector_is_refused_when_opened(vector: Any) -> None:
    link, options, wanted = vector
    with pytest.raises(getattr(mx8, wanted["error"])) as caught:
        mx8.Dataset(link, **options)
    assert_says(caught.value, wanted)


@pytest.mark.parametrize("vector", vectors("invalid", "read"), indirect=True)
def test_invalid_vector_is_refused_when_read(vector: Any) -> None:
    link, options, wanted = vector
    with mx8.Dataset(link, **options) as dataset, pytest.raises(getattr(mx8, wanted["error"])) as caught:
        read_pixels(list(dataset))
    assert_says(caught.value, wanted)


@pytest.mark.parametrize("vector", vectors("invalid", "verify"), indirect=True)
def test_verify_refuses_an_invalid_vector_that_can_be_read(vector: Any) -> None:
    link, options, wanted = vector
    with mx8.Dataset(link, **options) as dataset:
        read_pixels(list(dataset))
    damage = mx8.verify(link, data=True).damage
    assert [one for one in damage if one.reason in REASONS[wanted["error"]] and wanted["path"] in one.error + one.file]


def assert_says(error: mx8.ShardsError, wanted: dict[str, Any]) -> None:
    assert type(error) is getattr(mx8, wanted["error"])
    assert wanted["path"] in str(error)


def read_pixels(value: Any) -> None:
    """Read the pixels, because pictures are decoded lazily."""
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            read_pixels(item)
    elif isinstance(value, Image.Image):
        value.tobytes()


def is_as_expected(found: Any, wanted: Any) -> bool:
    """Does a value match its expectation (in the form that vectors/README.md defines)?"""
    if isinstance(wanted, (str, int)):
        return same(found, wanted)
    ((form, value),) = wanted.items()
    return FORMS[form](found, value)


def _is_scalar(found: Any, wanted: dict[str, Any]) -> bool:
    return same(found, np.dtype(wanted["dtype"]).type(wanted["value"]).item())


def _is_array(found: Any, wanted: dict[str, Any]) -> bool:
    numbers = np.array([np.dtype(wanted["dtype"]).type(value) for value in wanted["values"]], wanted["dtype"])
    return same(found, numbers.reshape(wanted["shape"])) and not found.flags.writeable


def _is_image(found: Any, wanted: dict[str, Any]) -> bool:
    if [found.mode, list(found.size)] != [wanted["mode"], wanted["size"]]:
        return False
    if "pixels" in wanted:
        return bool(found.tobytes().hex() == wanted["pixels"])
    first = np.atleast_1d(np.array(found.getpixel((0, 0)), int))
    return bool((np.abs(first - np.array(wanted["first_pixel"])) <= wanted["tolerance"]).all())


FORMS = {
    "bytes": lambda found, wanted: same(found, bytes.fromhex(wanted)),
    "scalar": _is_scalar,
    "ndarray": _is_array,
    "float": lambda found, wanted: same(found, float(wanted)),
    "decimal": lambda found, wanted: isinstance(found, Decimal) and str(found) == wanted,
    "json": same,
    "pickle": lambda found, wanted: repr(found) == wanted,
    "image": _is_image,
    "list": lambda found, wanted: len(found) == len(wanted) and all(map(is_as_expected, found, wanted)),
}


# tables without a dataset ---------------------------------------------------------------------------------------------


def table(name: str) -> dict[str, Any]:
    return json.loads((VECTORS / f"{name}.json").read_bytes())  # type: ignore[no-any-return]


def test_our_hashes_match_the_vectors() -> None:
    found = table("hashes")
    inputs = [bytes.fromhex(text) for text in found["inputs"]]
    assert found["hashes"].keys() == set(hashing.HASHES)
    for name, values in found["hashes"].items():
        assert [hashing.hash_hex(name, data) for data in inputs] == values


def test_our_block_digests_match_the_vectors() -> None:
    files = table("blocks")["files"]
    assert len(files) > 3
    for file in files:
        data = (bytes(range(251)) * (file["bytes"] // 251 + 1))[: file["bytes"]]
        assert block_digests(data, file["block_bytes"]).hex() == "".join(file["digests"])


@pytest.mark.parametrize("picture", table("tiles")["pictures"], ids="{0[name]}".format)
def test_our_tiles_and_splices_match_the_vectors(picture: dict[str, Any]) -> None:
    source, tiled = bytes.fromhex(picture["source"]), bytes.fromhex(picture["tiled"])
    assert tiles.tile(source) == tiled
    check_splices(picture)


@pytest.mark.parametrize("picture", table("tiles")["read_only"], ids="{0[name]}".format)
def test_valid_tiles_that_we_would_not_write_are_read(picture: dict[str, Any]) -> None:
    assert tiles.tile(bytes.fromhex(picture["source"])) != bytes.fromhex(picture["tiled"])
    check_splices(picture)


@pytest.mark.parametrize("case", table("tiles")["not_tiled"], ids="{0[why]}".format)
def test_an_unfitting_tile_segment_is_not_an_error(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["jpeg"])
    assert not tiles.is_tiled(data)
    assert tiles.untile(data) == data


@pytest.mark.parametrize("case", table("tiles")["refused"], ids="{0[why]}".format)
def test_a_jpeg_that_cannot_be_tiled_is_stored_unchanged(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["jpeg"])
    assert tiles.tile(data) == data


def check_splices(picture: dict[str, Any]) -> None:
    source, tiled = bytes.fromhex(picture["source"]), bytes.fromhex(picture["tiled"])
    assert tiles.untile(tiled) == source
    data, out = np.frombuffer(tiled, np.uint8), np.empty(len(tiled), np.uint8)
    head: Any = np.zeros(1, jpeg.HEAD)[0]
    found: Any = np.zeros(1, jpeg_tiles.TILES)[0]
    assert jpeg.read_head(data, head) == jpeg.OK
    assert len(picture["splices"]) > 1
    for wanted in picture["splices"]:
        left, top = wanted["left"], wanted["top"]
        pixels = (left, top, left + wanted["width"], top + wanted["height"])
        assert jpeg_tiles.tiles_for(data, head, *pixels, found) == jpeg.OK
        assert [found["column_begin"], found["column_end"]] == wanted["columns"]
        assert [found["row_begin"], found["row_end"]] == wanted["rows"]
        size = jpeg_tiles.splice(data, head, data, 0, found, out)
        assert out[:size].tobytes().hex() == wanted["jpeg"]


def test_our_random_numbers_match_the_vectors() -> None:
    draws = table("randomness")["draws"]
    assert len(draws) > 5
    for draw in draws:
        asked = int(draw["seed"]), int(draw["epoch"]), np.array([int(draw["sample_id"])]), draw["purpose"]
        count, occurrence = len(draw["words"]), np.array([int(draw["occurrence"])])
        words, uniforms = (make(*asked, count, occurrence)[0] for make in (randomness.words, randomness.uniforms))
        assert [f"{word:016x}" for word in words.tolist()] == draw["words"]
        assert [value.hex() for value in uniforms.tolist()] == draw["uniforms"]
        for limit, integers in draw["integers"].items():
            assert randomness.integers(*asked, count, int(limit), occurrence)[0].tolist() == integers


def test_the_snapshot_of_a_vector_is_the_sha256_of_its_index() -> None:
    for folder in sorted((VECTORS / "valid").iterdir()):
        wanted = expected(folder)
        if not wanted["link"]:
            data = (folder / wanted["directory"] / "index.json").read_bytes()
            assert wanted["snapshot"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
