"""Does every public call raise SettingError for a bad setting, with the argument, the allowed and the given value?"""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mx8shards as mx8
from mx8shards import transforms
from mx8shards.errors import one_of, probability, real_number, shown, true_or_false, whole_number
from mx8shards.loading.ragged import Ragged
from tests import text_folders
from tests.text_folders import TextFolder

NAN = math.nan
TEXT_FOLDERS = text_folders.__file__
NO_INTS = (1.5, "1", True, NAN, np.True_, np.array([1, 2]), torch.tensor([1, 2]), [1])
HUGE = 10**5000  # Python prints no int of so many digits
NO_FLAGS = ("yes", "no", 1, 0, None, [])
NO_PROBABILITIES = (10**400, HUGE, -0.1, 1.5, NAN, "0.5", None, True, [0.5], np.float64(2))
NO_TEXTS = ("nope", "", None, 3, True, ["nope"], np.array(["a", "b"]))
NO_NUMBERS = ((), [], "123", 0.5, (NAN, 0.5, 0.5), (0.5, 0.5, math.inf), ("1", "2", "3"), [[0.5] * 3], True)

PICTURE: dict[str, tuple[Any, ...]] = {
    "size": (0, -1, 1 << 20, "224", (1, 2, 3), (0, 5), [3], *NO_INTS[:4]),
    "flip": NO_PROBABILITIES,
    "layout": (*NO_TEXTS, "chw"),
    "dtype": (*NO_TEXTS, "float64", float, np.float32),
    "seed": NO_INTS,
    "mean": NO_NUMBERS,
    "std": (*NO_NUMBERS, (0, 1, 1), (1, -1, 1)),
    "upright": NO_FLAGS,
}
CROP: dict[str, tuple[Any, ...]] = {**PICTURE, "exact": NO_FLAGS}
TRANSFORM: dict[str, tuple[Any, ...]] = {"p": NO_PROBABILITIES, "layout": (*NO_TEXTS[:2], *NO_TEXTS[3:])}
AMOUNTS = (-1, NAN, math.inf, "0.4", None, True, (0.4,), (1, 0.5), (0, NAN), ("0", "1"), (0, 1, 2))
MIX: dict[str, tuple[Any, ...]] = {
    "classes": (0, -1, None, *NO_INTS),
    "alpha": (0, -1, NAN, math.inf, "1", None, True),
    "p": NO_PROBABILITIES,
    "label_smoothing": NO_PROBABILITIES,
}

PICTURES = ("Decode", "CenterCrop", "ResizeCrop", "RandomResizedCrop")

# call → argument → invalid values
DEADLINES = (0, -1, NAN, math.inf, "5", None, True)

BAD: dict[str, dict[str, tuple[Any, ...]]] = {
    "Dataset": {
        "columns": ("id", 5, ["nope"], [["id"]]),
        "verify": NO_TEXTS,
        "allow_pickle": NO_FLAGS,
        "local": ("cache", 3),  # of a dataset that is local itself
        "cache_limit": (0, -1, "much", True, 1.5, NAN, [], "5gb"),
        "keep_zip": (*NO_FLAGS, True),
        "deadline_s": DEADLINES,
    },
    "mix": {
        "weights": (5, None, "a", [], [1, 2], [0], [-1.0], [NAN], ["1"], [True]),
        "on_exhausted": NO_TEXTS,
        "length": (-1, 21, 1.5, "3", True, NAN, 2**70),
    },
    "Writer": {
        "columns": (["id"], {}, None, "id", {3: "int"}, {"": "int"}),
        "compression": ("lzma", "zstd:99", 3, ""),
        "hashes": ("md5", None, ["crc32"], ["md5", "md5"], [3], [["md5"]]),
        "size_limit": (-1, 1 << 32, "much", "4gb", True, 1.5, NAN, []),
        "mode": NO_TEXTS,
        "metadata": ({"x": object()}, {"x": NAN}, [1]),
        "threads": (0, -1, 1 << 20, *NO_INTS),
        "rank": (-1, 4, *NO_INTS),
        "world_size": (0, -1, *NO_INTS),
        "allow_pickle": NO_FLAGS,
        "match_streaming": NO_FLAGS,
        "single_writer": NO_FLAGS,
        "deadline_s": DEADLINES,
    },
    "Loader": {
        "batch_size": (0, -1, 2**63, HUGE, None, *NO_INTS),
        "shuffle": (3, 0, "yes", None, mx8.BlockShuffle),
        "order": ("shuffle", 3, True, [0, 1], mx8.BlockShuffle(shards=2)),
        "seed": (None, *NO_INTS),
        "columns": ("id", 5, ["nope"]),
        "decode": (
            "rgb8",
            5,
            [],
            (),
            False,
            {"id": 5},
            {"nope": mx8.CenterCrop(8)},
            {"id": mx8.CenterCrop},
            {"id": mx8.CenterCrop(8)},
        ),
        "transform": (5, "flip", [str]),
        "uneven": NO_TEXTS,
        "on_error": NO_TEXTS,
        "memory": (0, -1, "much", True, 1.5, NAN, "1", []),
        "threads": (0, -1, 1 << 20, *NO_INTS),
        "io": NO_TEXTS,
        "rank": (-1, 4, *NO_INTS),
        "world_size": (0, -1, 1 << 40, *NO_INTS),
        "device": ("gpu", "", None, 0, "cuda:x", "cuda:-1", "mps", "cuda:9999", torch.device("meta")),
        "output": NO_TEXTS,
        "pool": (5, "pool", mx8.Pool),
        "read_timeout_s": (0, -1, 10**400, HUGE, "3", NAN, None, True, [3]),
    },
    "Loader.set_epoch": {"epoch": (-1, None, *NO_INTS)},
    "Loader.ids": {
        "epoch": (-1, HUGE, None, *NO_INTS),
        "step": (-1, None, *NO_INTS),
        "rank": (-1, 4, *NO_INTS),
        "world_size": (0, -1, *NO_INTS),
    },
    "Ragged.view": {"dtype": (">u2", "foo", "float128", "bool", np.uint16, np.dtype("uint16"), None, 3)},
    "Pool": {"memory": (0, -1, "much", True, 1.5, NAN, []), "threads": (0, -1, 1 << 20, *NO_INTS)},
    "BlockShuffle": {"shards": (0, -1, None, *NO_INTS)},
    "Decode": PICTURE,
    "CenterCrop": {**CROP, "resize": (0, 7, 1 << 20, *NO_INTS)},
    "ResizeCrop": CROP,
    "RandomResizedCrop": {
        **CROP,
        "scale": ((0, 1), (0.5, 0.1), (0.1, 1.5), (0.1,), 0.5, None, (0.1, NAN), ("0.1", "1"), (True, True)),
        "ratio": ((0, 1), (2, 1), (1,), 1, None, (0.5, math.inf), (NAN, 1), ("1", "2")),
    },
    "Clip": {
        "size": (0, -1, (8,), (8, 0), "8", 1.5, True),
        "crop": (5, "centre", mx8.Decode(), mx8.CenterCrop(8, upright=True)),
        "layout": NO_TEXTS,
    },
    "Audio": {"rate": (0, 999, 384_001, *NO_INTS), "channels": (0, 3, *NO_INTS)},
    "MultiCrop": {"each": ({}, None, 5, [mx8.ResizeCrop(5)], {"a": 5}, {1: mx8.ResizeCrop(5)})},
    "register_encoding": {"name": ("int", "", "a:b", 3, None), "encoding": (5, None)},
    "verify": {
        "deadline_s": DEADLINES,
        "data": NO_FLAGS,
        "subset": ("0%", "101%", "five", 0, -1, 1.5, NAN, True, [1], b"5%"),
        "seal": NO_FLAGS,
        "repair": NO_FLAGS,
    },
    "merge": {
        "deadline_s": DEADLINES,
        "parts": ("part", 5, None),
        "how": NO_TEXTS,
        "mode": NO_TEXTS,
        "metadata": ({"x": object()}, [1]),
        "onto": (5, "sha256:00"),
        "single_writer": NO_FLAGS,
    },
    "convert_from": {
        "deadline_s": DEADLINES,
        "source": ("parquet", "recipe.py", "", None, 5, TextFolder),
        "out": (None,),
        "append": NO_FLAGS,
        "split": ("", "train", "a=x", "a=0.5,b=0.4", {"a": 1.5, "b": -0.5}, {"../a": 1}, {3: 1}, 5, [("a", 1)]),
        "seed": (-1, 3, None, *NO_INTS),
        "workers": (0, -1, 1 << 20, None, *NO_INTS),
        "size_limit": (-1, 1 << 32, "much", True, 1.5, []),
        "compression": ("lzma", "zstd:99", 3, ""),
        "single_writer": NO_FLAGS,
    },
    "gc": {
        "deadline_s": DEADLINES,
        "keep": (-1, None, *NO_INTS),
        "older_than_days": (7, 0.5, "7"),  # of a dataset that is local
    },
    "sync": {"single_writer": NO_FLAGS, "deadline_s": DEADLINES},
    **{name: {"deadline_s": DEADLINES} for name in ("diff", "log", "summary")},
    "transforms.RandomHorizontalFlip": TRANSFORM,
    "transforms.RandomGrayscale": TRANSFORM,
    "transforms.ColorJitter": {
        **dict.fromkeys(("brightness", "contrast", "saturation"), AMOUNTS),
        "hue": (*AMOUNTS, 0.6, (-0.6, 0)),
        "layout": TRANSFORM["layout"],
    },
    "transforms.Normalize": {
        "mean": (*NO_NUMBERS, None, np.zeros((3, 1)), np.array(0.5)),
        "std": (*NO_NUMBERS, (0, 1, 1), (1, -1, 1), np.zeros(3), torch.zeros(3)),
        "dtype": (torch.uint8, "float32", None, np.float32, float),
        "layout": TRANSFORM["layout"],
    },
    "transforms.Mixup": MIX,
    "transforms.CutMix": {**MIX, "layout": TRANSFORM["layout"]},
    "transforms.Compose": {
        "steps": ([transforms.RandomHorizontalFlip(), transforms.RandomHorizontalFlip(0.1)], 5, None, [5]),
    },
}

# arguments that are not settings: data, paths, names of columns, progress functions
NO_SETTINGS: dict[str, set[str]] = {
    "Dataset": {"link", "cache_dir"},
    "Writer": {"out"},
    "Loader": {"dataset"},
    "verify": {"link", "progress"},
    "merge": {"out", "progress"},
    "convert_from": {"src", "progress", "options"},
    "gc": {"link", "progress"},
    "sync": {"source", "target", "progress"},
    "diff": {"a", "b", "progress"},
    "log": {"link"},
    "summary": {"link"},
    "concat": {"datasets"},
    "mix": {"datasets"},
    **{f"transforms.{name}": {"image", "label"} for name in transforms.__all__},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("settings") / "data"
    with mx8.Writer(root, columns={"id": "int"}) as writer:
        for i in range(20):
            writer.write({"id": i})
    return root


def called(name: str, root: Path, tmp_path: Path, /, **given: Any) -> Any:
    """Make the call with one given argument and valid values for the required ones."""
    world = {"rank": 1, "world_size": 4} if {"rank", "world_size"} & given.keys() else {}
    needed: dict[str, dict[str, Any]] = {
        "Dataset": {"link": root},
        "Writer": {"out": tmp_path / "new", "columns": {"id": "int"}, **world},
        "register_encoding": {"name": "mine", "encoding": lambda text: text},
        "verify": {"link": root},
        "merge": {"parts": [root], "out": tmp_path / "merged"},
        "gc": {"link": root},
        "log": {"link": root},
        "summary": {"link": root},
        "diff": {"a": root, "b": root},
        "sync": {"source": root, "target": tmp_path / "copy"},
        "convert_from": {"source": TEXT_FOLDERS, "src": root, "out": tmp_path / "new"},
        "MultiCrop": {},
        "Audio": {},
        "Clip": {"size": 8},
        "BlockShuffle": {},
        "Pool": {},
        "transforms.Normalize": {"mean": (0.5,) * 3, "std": (0.5,) * 3},
        "transforms.Mixup": {"classes": 5},
        "transforms.CutMix": {"classes": 5},
        **{crop: {"size": 8} for crop in PICTURES},
    }
    floats = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "dtype": "float32"}
    if name in PICTURES and {"mean", "std"} & given.keys():
        given = {**floats, **given}
    if name == "mix":
        with mx8.Dataset(root) as dataset:
            return mx8.mix([dataset], **{"weights": [1.0], **given})
    if name == "Ragged.view":
        return Ragged(torch.zeros(16, dtype=torch.uint8), torch.tensor([0, 16]), None).view(**given)
    if not name.startswith("Loader"):
        return public_object(name)(**{**needed.get(name, {}), **given})
    with mx8.Dataset(root) as dataset:
        if name == "Loader":
            return mx8.Loader(dataset, **{"batch_size": 4, **world, **given})
        loader = mx8.Loader(dataset, batch_size=4)
        wanted = {"epoch": 0, "step": 0, **world} if name == "Loader.ids" else {}
        return getattr(loader, name.removeprefix("Loader."))(**{**wanted, **given})


CASES = [
    pytest.param(name, argument, value, id=f"{name}({argument}={shown(value)})"[:100])
    for name, arguments in BAD.items()
    for argument, values in arguments.items()
    for value in values
]


@pytest.mark.parametrize(("name", "argument", "value"), CASES)
def test_an_invalid_setting_is_an_error_with_name_allowed_values_and_given_value(
    name: str, argument: str, value: Any, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(mx8.SettingError) as caught:
        called(name, root, tmp_path, **{argument: value})
    assert isinstance(caught.value, ValueError)
    assert argument in caught.value.subject
    assert caught.value.message or (caught.value.expected and caught.value.found)
    assert list(tmp_path.iterdir()) == []


PUBLIC = [name for name in mx8.__all__ if not name.endswith("Error") and callable(getattr(mx8, name))]


@pytest.mark.parametrize("name", [*PUBLIC, *(f"transforms.{name}" for name in transforms.__all__)])
def test_these_tests_cover_every_argument_of_public_calls(name: str) -> None:
    arguments = set(inspect.signature(public_object(name)).parameters)
    assert arguments - NO_SETTINGS.get(name, set()) <= set(BAD.get(name, {}))


# help() --------------------------------------------------------------------------------------------------------------

EXPLAINED = [*PICTURES, "MultiCrop", "BlockShuffle", *(f"transforms.{name}" for name in transforms.__all__)]


def public_object(name: str) -> Any:
    """The object of a dotted name."""
    return getattr(transforms if name.startswith("transforms.") else mx8, name.removeprefix("transforms."))


@pytest.mark.parametrize("name", EXPLAINED)
def test_help_explains_every_argument(name: str) -> None:
    text = inspect.getdoc(public_object(name)) or ""
    explained = re.findall(r"^    (\w+): ", text[text.index("Args:") :], re.MULTILINE)
    assert set(explained) == set(inspect.signature(public_object(name)).parameters)
    assert len(explained) == len(set(explained))


@pytest.mark.parametrize("name", EXPLAINED)
def test_signatures_show_the_allowed_values(name: str) -> None:
    for argument, parameter in inspect.signature(public_object(name)).parameters.items():
        if argument == "layout":
            assert "Literal['CHW', 'HWC']" in str(parameter).replace('"', "'")
        if argument == "dtype" and name in PICTURES:
            assert "Literal['uint8', 'float16', 'float32']" in str(parameter).replace('"', "'")


# allowed values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [int, np.int8, np.uint16, np.int64])
def test_numpy_integers_are_accepted(kind: Any, root: Path, tmp_path: Path) -> None:
    with mx8.Dataset(root) as dataset:
        loader = mx8.Loader(
            dataset, batch_size=kind(4), seed=kind(3), threads=kind(1), rank=kind(0), world_size=kind(2), memory="50mb"
        )
        loader.set_epoch(kind(2))
        assert loader.ids(epoch=kind(0), step=kind(1), rank=kind(1), world_size=kind(2)).tolist() == [12, 13, 14, 15]
        assert loader.state_dict()["epoch"] == 2
        loader.close()
    with mx8.Writer(tmp_path / "new", columns={"id": "int"}, threads=kind(2), size_limit=kind(100)) as writer:
        writer.write({"id": 1})
    assert mx8.gc(tmp_path / "new", keep=kind(1)).snapshots == ()
    assert mx8.CenterCrop(kind(8), resize=kind(9), seed=kind(3)) == mx8.CenterCrop(8, resize=9, seed=3)
    assert repr(mx8.BlockShuffle(shards=kind(3))) == "BlockShuffle(shards=3)"
    assert repr(transforms.Mixup(classes=kind(5))) == repr(transforms.Mixup(classes=5))


def test_a_device_may_be_a_torch_device(root: Path) -> None:
    with mx8.Dataset(root) as dataset:
        for device in ("cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)):
            with mx8.Loader(dataset, batch_size=20, device=device) as loader:  # type: ignore[arg-type]
                assert next(iter(loader))["id"].device.type == "cpu"


@pytest.mark.parametrize("seconds", [1, 0.5, np.float32(2), math.inf])
def test_a_time_limit_is_any_number_above_0(seconds: Any, root: Path) -> None:
    with mx8.Dataset(root) as dataset, mx8.Loader(dataset, batch_size=20, read_timeout_s=seconds) as loader:
        assert len(list(loader)) == 1


def test_batch_size_and_world_size_may_be_huge(root: Path) -> None:
    with mx8.Dataset(root) as dataset, mx8.Loader(dataset, batch_size=1 << 40, world_size=1 << 16, rank=0) as loader:
        assert [len(batch.sample_ids) for batch in loader] == [1]


@pytest.mark.parametrize("variable", ["RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"])
@pytest.mark.parametrize("text", ["-1", "two", "", "1.5", "²", "9" * 5000])
def test_an_invalid_environment_variable_is_an_error_that_names_it(
    variable: str, text: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    wanted = f"^environment variable {variable}: expected an int from [01].*, got "
    with mx8.Dataset(root) as dataset, pytest.raises(mx8.SettingError, match=wanted) as caught:
        mx8.Loader(dataset, batch_size=4)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("variable", "text"), [("WORLD_SIZE", "4"), ("RANK", "0"), ("RANK", "3")])
def test_rank_and_world_size_must_be_given_together(
    variable: str, text: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv(variable, text)
    wanted = f"^environment variables RANK and WORLD_SIZE: expected both, or neither, got {variable}='{text}' alone"
    with mx8.Dataset(root) as dataset:
        with pytest.raises(mx8.SettingError, match=wanted):
            mx8.Loader(dataset, batch_size=4)
        with mx8.Loader(dataset, batch_size=4, rank=1, world_size=2) as loader:
            assert (loader.rank, loader.world_size) == (1, 2)


def test_a_world_size_of_one_needs_no_rank(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    with mx8.Dataset(root) as dataset, mx8.Loader(dataset, batch_size=4) as loader:
        assert (loader.rank, loader.world_size) == (0, 1)


# the check functions --------------------------------------------------------------------------------------------------


def test_long_values_are_shortened_in_messages() -> None:
    with pytest.raises(mx8.SettingError) as caught:
        whole_number("count", list(range(100_000)), 0)
    assert len(str(caught.value)) < 300


def test_checks_return_python_values() -> None:
    assert type(whole_number("n", np.int16(3), 0)) is int
    assert type(real_number("x", np.float32(0.5), "any", lambda x: x > 0)) is float
    assert type(probability("p", 1)) is float
    assert true_or_false("flag", np.True_) is True
    one_of("word", "a", ("a", "b"))
    assert whole_number("any", -(10**40), None) == -(10**40)
