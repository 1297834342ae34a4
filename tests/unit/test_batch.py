"""Does a batch survive torch's collate and pin_memory, pickle, and rebuilding from a mapping?"""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, default_collate, default_convert

from mx8shards.errors import LoaderError
from mx8shards.loading.batch import Batch
from mx8shards.loading.output_kinds import converter
from mx8shards.loading.ragged import EncodingDecoder, Ragged
from mx8shards.stages import Output
from mx8shards.transforms import RandomHorizontalFlip

DEVICES = ["meta", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


def batch_of(rows: int = 4, output: Any = "torch") -> Batch:
    convert = converter(output)
    texts = np.frombuffer(b"".join(b"row %d" % i for i in range(rows)), np.uint8).copy()
    values = {
        "image": convert(np.arange(rows * 12, dtype=np.uint8).reshape(rows, 3, 2, 2)),
        "text": Ragged(convert(texts), convert(np.arange(0, 5 * rows + 1, 5)), EncodingDecoder("str")),
    }
    pictures = {"image": Output(np.dtype(np.uint8), (3, 2, 2), "CHW")}
    return Batch(values, convert(np.arange(10, 10 + rows)), convert(np.arange(rows) == rows - 1), 3, 17, pictures)


def assert_equal(found: Batch, wanted: Batch) -> None:
    assert type(found) is Batch
    assert list(found) == list(wanted)
    assert np.array_equal(found["image"], wanted["image"])
    assert [*found["text"]] == [*wanted["text"]]
    assert_same_rows(found, wanted)


def assert_same_rows(found: Batch, wanted: Batch) -> None:
    assert found.sample_ids.tolist() == wanted.sample_ids.tolist()
    assert found.padding.tolist() == wanted.padding.tolist()
    assert (found.epoch, found.seed) == (wanted.epoch, wanted.seed)
    assert found.layouts == wanted.layouts == {"image": "CHW"}


WAYS: dict[str, Callable[[Batch], Batch]] = {
    "copy": Batch.copy,
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda batch: pickle.loads(pickle.dumps(batch)),
    "replace": lambda batch: batch.replace({}),
    "map": lambda batch: batch.map(lambda value: value + 0),
    "of itself": Batch,
    "pytree": lambda batch: pytree.tree_map(lambda value: value + 0, batch),
    "default_convert": default_convert,
    "default_collate": lambda batch: default_collate([batch]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("output", ["torch", "numpy"])
def test_a_batch_keeps_its_columns_and_the_attributes_of_its_rows(way: str, output: Any) -> None:
    batch = batch_of(output=output)
    assert batch["text"][-1] == "row 3"  # a row that was indexed keeps memory that cannot be pickled
    found = WAYS[way](batch)
    if way == "default_convert":
        assert isinstance(found["image"], torch.Tensor)
    assert_equal(found, batch_of(output=output))


def test_a_copy_shares_no_memory_and_a_shallow_one_no_columns() -> None:
    batch = batch_of()
    copied, shallow = batch.copy(), copy.copy(batch)
    shallow["image"] = shallow["image"] + 1
    del shallow["text"]
    batch["image"][:] = 0
    batch["text"].values[:] = 0
    batch.sample_ids[:] = 0
    batch.padding[:] = True
    assert_equal(copied, batch_of())
    assert list(batch) == ["image", "text"]


def test_columns_can_be_replaced_and_added() -> None:
    batch = batch_of()
    batch["image"] = batch["image"].float() / 255
    changed = batch.replace({"label": torch.arange(4)})
    assert list(changed) == ["image", "text", "label"]
    assert list(batch) == ["image", "text"]
    assert changed["image"].dtype == torch.float32
    assert_same_rows(changed, batch_of())


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_a_batch_rebuilt_from_a_mapping_has_its_columns_and_names_missing_attributes(kind: Any) -> None:
    batch = batch_of()
    found = type(batch)(kind(batch.items()))
    assert list(found) == ["image", "text"]
    assert found["image"] is batch["image"]
    assert repr(found) == "<Batch: image, text>"
    assert found.layouts == {}
    for name in ("sample_ids", "padding", "epoch", "seed"):
        assert not hasattr(found, name)
        with pytest.raises(AttributeError, match=f"made from columns alone and has no {name}"):
            getattr(found, name)
    with pytest.raises(AttributeError, match="sample_ids"):
        RandomHorizontalFlip()(found)
    assert list(found.map(lambda value: value)) == list(found.copy()) == list(pickle.loads(pickle.dumps(found)))


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_on_another_device_keeps_its_sample_ids_on_the_host(device: str) -> None:
    for non_blocking in (False, True):
        found = batch_of().to(device, non_blocking=non_blocking)
        assert found["image"].device.type == found["text"].values.device.type == found.padding.device.type == device
        assert found.sample_ids.device.type == "cpu"
        assert found.sample_ids.tolist() == [10, 11, 12, 13]
        assert (found.epoch, found.seed) == (3, 17)
    assert_equal(batch_of().to("cpu"), batch_of())
    assert_equal(batch_of().to(torch.device("cpu"), non_blocking=True), batch_of())


def test_a_copy_out_of_a_bank_always_blocks_until_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bank is reused once its tensors are gone, which may be before an asynchronous copy is complete."""
    asked: dict[int, bool] = {}
    real = torch.Tensor.to

    def recorded(tensor: torch.Tensor, *arguments: Any, non_blocking: bool = False, **options: Any) -> torch.Tensor:
        asked[tensor.data_ptr()] = non_blocking
        return real(tensor, *arguments, non_blocking=non_blocking, **options)

    batch = batch_of().replace({"own": torch.ones(4)})
    text = batch["text"]
    lent = [batch["image"], batch.padding, text.values, text.offsets, batch["image"][1:]]
    batch["part"] = lent[-1]
    monkeypatch.setattr(torch.Tensor, "to", recorded)
    batch.to("meta", non_blocking=True)
    assert [asked.pop(tensor.data_ptr()) for tensor in lent] == [False] * len(lent)
    assert asked == {batch["own"].data_ptr(): True}
    batch.to("meta")
    assert not any(asked.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_pinned_batch_is_pinned_and_comes_back_from_the_gpu() -> None:
    pinned = batch_of().pin_memory()
    assert pinned["image"].is_pinned()
    assert pinned["text"].values.is_pinned()
    assert_equal(pinned.to("cuda", non_blocking=True).to("cpu"), batch_of())


def test_values_that_a_transform_added_move_with_the_batch() -> None:
    batch = batch_of().replace({"pair": (torch.ones(4), ["a", torch.zeros(1)]), "note": "text", "nothing": None})
    found = batch.to("meta")
    assert found["pair"][0].device.type == found["pair"][1][1].device.type == "meta"
    assert (found["pair"][1][0], found["note"], found["nothing"]) == ("a", "text", None)


def test_arrays_cannot_be_moved_or_pinned() -> None:
    for act in (lambda batch: batch.to("cuda"), Batch.pin_memory):
        with pytest.raises(LoaderError, match='output="torch"'):
            act(batch_of(output="numpy"))


def test_pytree_leaves_of_a_batch_are_its_columns_and_two_per_ragged_column() -> None:
    leaves, spec = pytree.tree_flatten(batch_of())
    assert [leaf.shape[0] for leaf in leaves] == [4, 20, 5]
    other = pytree.tree_flatten(batch_of(4).replace({}))[1]
    assert spec == other
    assert_equal(pytree.tree_unflatten(leaves, spec), batch_of())
    assert pytree.tree_map(lambda one, two: int((one == two).all()), batch_of(), batch_of())["image"] == 1


def test_a_data_loader_that_would_collate_batches_gets_an_error() -> None:
    assert_equal(next(iter(DataLoader([batch_of()]))), batch_of())  # type: ignore[arg-type]
    with pytest.raises(LoaderError, match="batch_size=None"):
        next(iter(DataLoader([batch_of(), batch_of()], batch_size=2)))  # type: ignore[arg-type]


REGISTER = """
import sys, threading, warnings
import torch
from torch.utils import _pytree
warnings.simplefilter("error")
sys.setswitchinterval(1e-6)
real, calls = _pytree.register_pytree_node, []

def interrupted(*arguments, **options):
    real(*arguments, **options)
    raise KeyboardInterrupt

from mx8shards.loading.batch import Batch
from mx8shards.loading.output_kinds import converter
_pytree.register_pytree_node = interrupted
try:
    converter("torch")
except KeyboardInterrupt:
    _pytree.register_pytree_node = real
errors, ready = [], threading.Barrier(4)

def register():
    ready.wait()
    try:
        converter("torch")
    except Exception as error:
        errors.append(error)

threads = [threading.Thread(target=register) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not errors, errors
assert _pytree.tree_map(lambda leaf: leaf + 1, Batch({"a": torch.zeros(2)}))["a"].tolist() == [1, 1]
from mx8shards.loading.ragged import Ragged
assert Ragged in _pytree.SUPPORTED_NODES
print("registered")
"""


def test_batches_are_registered_with_torch_once_despite_threads_and_ctrl_c() -> None:
    done = subprocess.run([sys.executable, "-c", REGISTER], capture_output=True, text=True, timeout=300, check=False)
    assert (done.stdout, done.returncode) == ("registered\n", 0), done.stderr


def test_pictures_are_leaves_with_channels_first_with_and_without_torchvision() -> None:
    pixels = torch.arange(2 * 5 * 4 * 3, dtype=torch.uint8).reshape(2, 5, 4, 3)
    known = {"image": Output(np.dtype(np.uint8), (5, 4, 3), "HWC")}
    batch = Batch({"image": pixels}, torch.arange(2), torch.zeros(2, dtype=torch.bool), 0, 0, known)
    [leaf], spec = pytree.tree_flatten(batch)
    assert leaf.shape == (2, 3, 5, 4)
    same = pytree.tree_unflatten([leaf], spec)
    assert torch.equal(same["image"], pixels)
    assert same["image"].is_contiguous()
    assert same["image"].data_ptr() == pixels.data_ptr()  # no copy
    assert torch.equal(pytree.tree_map(lambda leaf: leaf[:, :, :2], batch)["image"], pixels[:, :2])
