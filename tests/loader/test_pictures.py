"""Are the crops in a batch close to Pillow's, for every decoder and every way to read files?"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import mx8shards as mx8
from mx8shards.kernels import turbo
from mx8shards.media.tiles import is_tiled, tile
from tests.loader.child_process import ChildProcess
from tests.loader.leak_checks import time_limit
from tests.page_cache import drop
from tests.pictures import difference, draws_of, file_of, jpeg, reference_crop, write
from tests.pixels import picture

Array = npt.NDArray[Any]

SAMPLINGS = ("444", "422", "420", "440", "411", "Gray", "progressive")
SIZES = [(300, 400), (123, 77), (33, 217), (1, 1), (1, 60), (7, 5), (16, 16), (17, 33)]
SPECS: dict[str, Any] = {
    "random": mx8.RandomResizedCrop(64, flip=0.5),
    "small parts": mx8.RandomResizedCrop((48, 96), scale=(0.05, 0.2), seed=3, flip=0.5),
    "center": mx8.CenterCrop(80),
    "resized": mx8.CenterCrop((50, 60), resize=70),
    "covered": mx8.ResizeCrop((40, 90), flip=0.5),
}


def encoded(sampling: str, pixels: Array) -> bytes:
    return file_of(pixels, quality=90, progressive=True) if sampling == "progressive" else jpeg(pixels, sampling)


@pytest.fixture(scope="module", params=[True, False], ids=["smooth", "noisy"])
def look(request: pytest.FixtureRequest) -> str:
    return "smooth" if request.param else "noisy"


@pytest.fixture(scope="module")
def files() -> dict[str, list[bytes]]:
    """JPEGs of all kinds: smooth ones, and noise."""
    kinds = [(sampling, size) for sampling in SAMPLINGS for size in SIZES]
    return {
        name: [encoded(sampling, picture(*size, i, name == "smooth")) for i, (sampling, size) in enumerate(kinds)]
        for name in ("smooth", "noisy")
    }


@pytest.fixture(scope="module")
def data(place: Path, files: dict[str, list[bytes]]) -> dict[str, mx8.Dataset]:
    """A dataset of each list, and one of all files in tiles."""
    tiled = {f"{name} in tiles": [tile(file) for file in each] for name, each in files.items()}
    assert sum(map(is_tiled, tiled["smooth in tiles"])) >= 5
    return {name: write(place / name, each) for name, each in (files | tiled).items()}


@pytest.fixture(params=["libturbojpeg", "simplejpeg"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The decoder library of JPEGs."""
    if request.param == "simplejpeg":
        monkeypatch.setattr(turbo, "library", None)
    elif turbo.library is None:
        pytest.skip("there is no libturbojpeg here")
    return str(request.param)


def loader_of(dataset: mx8.Dataset, spec: Any, **options: Any) -> mx8.Loader:
    settings = {"batch_size": 9, "decode": {"image": spec}, "threads": 2, "output": "numpy"}
    return mx8.Loader(dataset, **settings | options)  # type: ignore[arg-type]


def rows(batches: Any, key: str = "image") -> dict[int, Array]:
    """Each sample's crop, copied out of the bank."""
    found: dict[int, Array] = {}
    for batch in batches:
        assert batch["label"].tolist() == batch.sample_ids.tolist()
        for row, sample_id in enumerate(batch.sample_ids.tolist()):
            found[sample_id] = batch[key][row].copy()
    return found


def crops(dataset: mx8.Dataset, spec: Any, key: str = "image", **options: Any) -> dict[int, Array]:
    """The crops of an epoch."""
    with loader_of(dataset, spec, **options) as loader:
        return rows(loader, key)


def same(a: dict[int, Array], b: dict[int, Array]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[i], b[i]) for i in a)


# values ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_exact_crops_equal_pillows(
    name: str, look: str, backend: str, files: dict[str, list[bytes]], data: dict[str, mx8.Dataset]
) -> None:
    """At most one level apart, or two for fractional boxes, which Pillow rounds to single precision."""
    spec = dataclasses.replace(SPECS[name], exact=True, layout="HWC")
    found = crops(data[look], spec)
    assert sorted(found) == list(range(len(files[look])))
    for i, file in enumerate(files[look]):
        mean, most = difference(found[i], reference_crop(file, spec, "image", i))
        told = (SAMPLINGS[i // len(SIZES)], SIZES[i % len(SIZES)], mean, most)
        assert mean < 0.1, told
        assert most <= (1 if isinstance(spec, mx8.RandomResizedCrop) else 2), told


# Allowed difference in levels, mean and maximum, of crops made from planes or from pictures scaled during decoding.
# Noise is the worst case; "smooth" is still rougher than most photographs. 4:1:1 differs more, because Pillow does not
# interpolate its chroma. Tiny pictures differ more, because chroma has no neighbours to interpolate from.
BOUNDS = {
    "smooth": {"444": (2, 12), "422": (3, 24), "420": (4, 36), "440": (3, 24), "411": (10, 60), "Gray": (2, 12)},
    "noisy": {"444": (7, 40), "422": (7, 80), "420": (7, 90), "440": (7, 80), "411": (12, 100), "Gray": (7, 40)},
}
FEW = (30, 90)


@pytest.mark.parametrize("name", SPECS)
def test_default_crops_are_close_to_pillows(
    name: str, look: str, backend: str, files: dict[str, list[bytes]], data: dict[str, mx8.Dataset]
) -> None:
    spec = dataclasses.replace(SPECS[name], layout="HWC")
    found = crops(data[look], spec)
    for i, file in enumerate(files[look]):
        sampling, size = SAMPLINGS[i // len(SIZES)].replace("progressive", "420"), SIZES[i % len(SIZES)]
        mean, most = difference(found[i], reference_crop(file, spec, "image", i))
        most_mean, most_most = BOUNDS[look][sampling] if min(size) >= 16 else FEW
        assert mean <= most_mean, (sampling, size, mean, most)
        assert most <= most_most, (sampling, size, mean, most)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_tiled_and_plain_jpegs_give_equal_crops(
    name: str, exact: bool, look: str, backend: str, data: dict[str, mx8.Dataset]
) -> None:
    spec = dataclasses.replace(SPECS[name], exact=exact)
    tiled, plain = crops(data[f"{look} in tiles"], spec), crops(data[look], spec)
    if turbo.HAS_REGIONS and backend == "libturbojpeg" and not exact:  # tiles are decoded to planes, regions to RGB
        assert all(difference(tiled[i], plain[i])[0] <= FEW[0] for i in plain)
    else:
        assert same(tiled, plain)


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("scale", [{}, {"mean": MEAN, "std": STD}], ids=["plain", "normalised"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_layouts_and_dtypes_change_only_the_form(
    layout: Any, dtype: Any, scale: Any, data: dict[str, mx8.Dataset]
) -> None:
    spec = SPECS["covered"]
    levels = crops(data["smooth"], spec)
    found = crops(data["smooth"], dataclasses.replace(spec, layout=layout, dtype=dtype, **scale))
    mean, std = (np.array(scale.get(name, default)) for name, default in (("mean", 0.0), ("std", 1.0)))
    for i, level in levels.items():
        expected = (level.transpose(1, 2, 0) / 255 - mean) / std
        expected = expected if layout == "HWC" else expected.transpose(2, 0, 1)
        assert found[i].dtype == dtype
        assert found[i].shape == expected.shape
        assert np.allclose(found[i], expected, rtol=2e-3 if dtype == "float16" else 1e-5, atol=2e-3 / 4)


def test_torch_tensors_equal_numpy_arrays(data: dict[str, mx8.Dataset]) -> None:
    torch = pytest.importorskip("torch")
    expected = crops(data["smooth"], SPECS["random"])
    with loader_of(data["smooth"], SPECS["random"], output="torch") as loader:
        for batch in loader:
            assert batch["image"].dtype == torch.uint8
            assert tuple(batch["image"].shape[1:]) == (3, 64, 64)
            for row, sample_id in enumerate(batch.sample_ids.tolist()):
                assert np.array_equal(batch["image"][row].numpy(), expected[sample_id])


# several crops --------------------------------------------------------------------------------------------------------

BIG, SMALL = (
    mx8.RandomResizedCrop(48, layout="HWC", exact=True, flip=0.5),
    mx8.RandomResizedCrop(32, scale=(0.05, 0.3), exact=True, flip=0.5),
)
SEVERAL = {
    "global": BIG,
    "other": BIG,
    "yoked": dataclasses.replace(BIG, seed=5),
    "with it": dataclasses.replace(BIG, seed=5),
    "smaller": dataclasses.replace(SMALL, layout="HWC", dtype="float32"),
}


def test_each_crop_of_a_multi_crop_equals_the_single_crop(
    backend: str, files: dict[str, list[bytes]], data: dict[str, mx8.Dataset]
) -> None:
    with loader_of(data["smooth in tiles"], mx8.MultiCrop(SEVERAL), columns=["image", "label"]) as loader:
        batches = [batch.copy() for batch in loader]
    assert all(sorted(batch) == sorted([*SEVERAL, "label"]) for batch in batches)
    for name, spec in SEVERAL.items():
        found = rows(batches, name)
        for i, crop in found.items():
            twin = reference_crop(files["smooth"][i], spec, name, i)
            levels = crop if crop.dtype == np.uint8 else np.rint(crop * 255)
            assert difference(levels, twin)[1] <= 1
    assert same(rows(batches, "yoked"), rows(batches, "with it"))
    differing = sum(
        not np.array_equal(a, b)
        for a, b in zip(*(rows(batches, n).values() for n in SEVERAL if n in ("global", "other")), strict=True)
    )
    assert differing > len(files["smooth"]) // 2


def test_crops_with_equal_seed_are_mirrored_together(data: dict[str, mx8.Dataset]) -> None:
    """Flips are equal for crops of different sizes."""
    spec = mx8.MultiCrop(
        {"a": mx8.RandomResizedCrop(48, seed=1, flip=0.5), "b": mx8.RandomResizedCrop(96, seed=1, flip=0.5)}
    )
    with loader_of(data["smooth"], spec) as loader:
        for batch in loader:
            halves = batch["b"].reshape(-1, 3, 48, 2, 48, 2).mean((3, 5))
            assert np.abs(halves - batch["a"]).mean() < 6


# reproducibility ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected(data: dict[str, mx8.Dataset]) -> dict[int, Array]:
    return crops(data["smooth in tiles"], SPECS["small parts"], threads=1, batch_size=1)


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 4, "batch_size": 16},
        {"threads": 3, "batch_size": 100},
        {"batch_size": 5, "shuffle": True},
        {"shuffle": mx8.BlockShuffle(shards=2)},
        {"io": "mmap"},
        {"io": "pread"},
    ],
    ids=str,
)
def test_crops_do_not_depend_on_threads_batches_and_order(
    options: dict[str, Any], data: dict[str, mx8.Dataset], expected: dict[int, Array]
) -> None:
    assert same(crops(data["smooth in tiles"], SPECS["small parts"], **options), expected)


def test_crops_do_not_depend_on_ranks(data: dict[str, mx8.Dataset], expected: dict[int, Array]) -> None:
    found: dict[int, Array] = {}
    for rank in range(3):
        found |= crops(data["smooth in tiles"], SPECS["small parts"], rank=rank, world_size=3, shuffle=True)
    assert same(found, expected)


@pytest.mark.parametrize("io", ["auto", "mmap", "pread"])
def test_crops_do_not_depend_on_the_page_cache(
    tmp_path: Path, io: Any, files: dict[str, list[bytes]], backend: str, data: dict[str, mx8.Dataset]
) -> None:
    cold = write(tmp_path / "cold", [tile(file) for file in files["smooth"]])
    drop(tmp_path / "cold")
    assert same(crops(cold, SPECS["small parts"], io=io), crops(data["smooth in tiles"], SPECS["small parts"]))


@pytest.mark.parametrize("cut", [0, 1, 4])
def test_crops_do_not_depend_on_an_interruption(cut: int, data: dict[str, mx8.Dataset]) -> None:
    options = {"shuffle": True, "seed": 9}
    whole = crops(data["smooth"], SPECS["random"], **options)
    with loader_of(data["smooth"], SPECS["random"], **options) as loader:
        batches = iter(loader)
        found = rows(next(batches) for _ in range(cut))
        state = json.loads(json.dumps(loader.state_dict()))
    with loader_of(data["smooth"], SPECS["random"], threads=1, batch_size=4, **options) as loader:
        loader.load_state_dict(state)
        rest = rows(loader)
    assert not found.keys() & rest.keys()
    assert same(found | rest, whole)


def test_crops_differ_between_epochs_and_seeds(files: dict[str, list[bytes]], data: dict[str, mx8.Dataset]) -> None:
    spec = dataclasses.replace(SPECS["random"], exact=True, layout="HWC")
    large = [i for i in range(len(files["smooth"])) if SIZES[i % len(SIZES)] == (300, 400)]
    with loader_of(data["smooth"], spec, seed=4) as loader:
        epochs = [rows(loader) for _ in range(3)]
        loader.set_epoch(1)
        assert same(rows(loader), epochs[1])
    other = crops(data["smooth"], spec, seed=5)
    for i in large:
        for epoch, found in enumerate(epochs):
            assert difference(found[i], reference_crop(files["smooth"][i], spec, "image", i, 4, epoch))[1] <= 1
        seen = [*(found[i].tobytes() for found in epochs), other[i].tobytes()]
        assert len(set(seen)) == 4


def test_about_half_of_the_crops_are_mirrored(place: Path) -> None:
    file = file_of(np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 3, 64, 0).repeat(3, 2), "PNG")
    dataset = write(place / "steps", [file] * 300)
    found = crops(dataset, mx8.CenterCrop(64, flip=0.5))
    mirrored = {i for i, crop in found.items() if crop[0, 0, 0] > crop[0, 0, -1]}
    expected = {i for i in range(300) if draws_of(mx8.CenterCrop(64), "image", i)[-1] < 0.5}
    assert mirrored == expected
    assert 110 < len(mirrored) < 190
    assert not {i for i, crop in crops(dataset, mx8.CenterCrop(64)).items() if crop[0, 0, 0] > crop[0, 0, -1]}


# beside other columns -------------------------------------------------------------------------------------------------


def test_two_columns_can_have_different_decoders(place: Path, files: dict[str, list[bytes]], backend: str) -> None:
    some = files["smooth"][:16]
    columns = {"left": "bytes", "right": "bytes", "caption": "str"}
    with mx8.Writer(place / "two", columns=columns, size_limit="30kb", mode="overwrite") as writer:
        for i, file in enumerate(some):
            writer.write({"left": file, "right": some[-1 - i], "caption": f"number {i}"})
    decode = {"left": mx8.CenterCrop(40, exact=True, layout="HWC"), "right": mx8.MultiCrop({"a": BIG, "b": BIG})}
    with mx8.Loader(mx8.Dataset(place / "two"), batch_size=5, decode=decode, threads=2, output="numpy") as loader:
        assert loader.stats()["pixels"] == {"left": "exact", "right": "exact"}
        for batch in loader:
            assert sorted(batch) == ["a", "b", "caption", "left"]
            for row, i in enumerate(batch.sample_ids.tolist()):
                assert batch["caption"][row] == f"number {i}"
                for key, file, spec in (
                    ("left", some[i], decode["left"]),
                    ("a", some[-1 - i], BIG),
                    ("b", some[-1 - i], BIG),
                ):
                    assert difference(batch[key][row], reference_crop(file, spec, key, i))[1] <= 1


@pytest.mark.parametrize("names", [("label", "a"), ("a", "label")])
def test_a_crop_cannot_be_named_like_a_column(names: tuple[str, str], data: dict[str, mx8.Dataset]) -> None:
    spec = mx8.MultiCrop(dict.fromkeys(names, BIG))
    twice = "expected a unique name for each output, got 'label' twice"
    with pytest.raises(mx8.SettingError, match=twice):
        loader_of(data["smooth"], spec)
    with loader_of(data["smooth"], spec, columns=["image"]) as loader:
        assert sorted(next(iter(loader))) == sorted(names)


@pytest.mark.parametrize("column", ["label", "nothing"])
def test_only_columns_of_picture_files_can_be_decoded(column: str, data: dict[str, mx8.Dataset]) -> None:
    with pytest.raises(mx8.ShardsError, match=column):
        mx8.Loader(data["smooth"], batch_size=3, decode={column: BIG})


# choice of the decoder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [True, False])
def test_stats_and_state_name_the_decoder(exact: bool, backend: str, data: dict[str, mx8.Dataset]) -> None:
    with loader_of(data["smooth"], dataclasses.replace(SPECS["random"], exact=exact)) as loader:
        found = loader.stats()["pixels"]
        assert list(found) == ["image"]
        assert found["image"].split()[0] == ("exact" if exact else "planes" if backend == "libturbojpeg" else "rgb")
        assert loader.state_dict()["pixels"] == found


def test_resuming_with_another_decoder_warns(data: dict[str, mx8.Dataset]) -> None:
    spec = SPECS["random"]
    with loader_of(data["smooth"], spec) as loader:
        next(iter(loader))
        state = loader.state_dict()
    with loader_of(data["smooth"], dataclasses.replace(spec, exact=True)) as loader:
        with pytest.warns(
            UserWarning, match="another way of decoding pictures: image by '.*' then, image by 'exact' now"
        ):
            loader.load_state_dict(state)
        assert len(rows(loader)) == len(data["smooth"]) - 9
    with loader_of(data["smooth"], spec) as loader, warnings.catch_warnings():
        warnings.simplefilter("error")
        loader.load_state_dict(state)


# threads and processes ------------------------------------------------------------------------------------------------


def test_a_data_loader_gets_equal_crops(data: dict[str, mx8.Dataset], backend: str) -> None:
    expected = crops(data["smooth"], SPECS["random"], shuffle=True)
    with loader_of(data["smooth"], SPECS["random"], shuffle=True) as loader:
        assert same(taken(loader.as_iterable_dataset()), expected)


def test_workers_of_a_data_loader_get_equal_crops(
    child_process: ChildProcess, place: Path, data: dict[str, mx8.Dataset]
) -> None:
    pytest.importorskip("torch")
    expected = crops(data["smooth"], mx8.RandomResizedCrop(32))
    with time_limit(240):  # kernels may have to be compiled first
        child_process.start("decoded_for", data=str(place / "smooth"), count=2)
        (said,), status = child_process.read_rest()
    assert (status, child_process.errors) == (0, "")
    assert json.loads(said) == [[i, zlib.crc32(expected[i])] for i in sorted(expected)]


def taken(batches: Any) -> dict[int, Array]:
    return {
        int(i): np.asarray(crop) for batch in batches for i, crop in zip(batch.sample_ids, batch["image"], strict=True)
    }


@pytest.mark.hunt
@pytest.mark.skipif("NUMBA_BOUNDSCHECK" in os.environ, reason="this is that process")
def test_these_tests_pass_with_bounds_checking(tmp_path: Path, repository: Path) -> None:
    """With a separate cache, so that all kernels are recompiled with checks."""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    files = [str(Path(__file__).with_name(f"test_{name}.py")) for name in ("pictures", "picture_files")]
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(run, env=environment, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("decode", ["rgb8", {"image": "rgb8"}, {"image": mx8.CenterCrop}, mx8.CenterCrop(8)])
def test_objects_that_are_not_decoders_are_refused(decode: Any, tmp_path: Path) -> None:
    dataset = write(tmp_path, [])
    with pytest.raises(mx8.SettingError, match="decode: expected a decoder for each column"):
        mx8.Loader(dataset, batch_size=1, decode=decode)


def test_a_decoder_for_a_column_that_is_not_loaded_is_refused(tmp_path: Path) -> None:
    dataset = write(tmp_path, [])
    with pytest.raises(mx8.SettingError, match="decode: expected a column that is loaded: 'label', got 'image'"):
        mx8.Loader(dataset, batch_size=1, columns=["label"], decode={"image": mx8.CenterCrop(8)})
