"""How do torch's tools handle a Batch? Registration with pytree, and with a DataLoader's collate function.

Importing this module registers both. An import happens once, also with several threads, and is repeated after Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree
from torch.utils.data._utils.collate import default_collate_fn_map

from mx8shards.errors import LoaderError
from mx8shards.loading.batch import Batch
from mx8shards.loading.ragged import Ragged


class _Context:
    """The parts of a container other than its tensors, such as sample_ids.

    All are equal, so that two batches with the same columns have equal tree structures.
    """

    def __init__(self, content: Any) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Context)

    def __hash__(self) -> int:
        return 0


def _batch_parts(batch: Batch) -> tuple[list[Any], Any]:
    """A batch's columns as leaves. Those of three or more dimensions come first.

    torchvision takes the first tensor for the image. Decoded pictures are leaves with their channels first, whatever
    their layout is in the batch.
    """
    names = sorted(batch, key=lambda name: getattr(batch[name], "ndim", 0) < 3)
    layouts = batch.layouts
    leaves = [_as_image(batch[name], layouts[name]) if name in layouts else batch[name] for name in names]
    return leaves, (tuple(names), _Context((batch._rows, layouts)))


def _batch_of(values: Any, context: Any) -> Batch:
    names, beside = context
    rows, layouts = beside.content
    columns = zip(names, values, strict=True)
    return Batch({name: _of_image(leaf, layouts[name]) if name in layouts else leaf for name, leaf in columns}, *rows)


def _as_image(value: Any, layout: str) -> Any:
    """Pictures with their channels first, as a tv_tensors.Image if torchvision.tv_tensors is imported."""
    if not isinstance(value, torch.Tensor):
        return value
    first = value if layout == "CHW" else value.permute(0, 3, 1, 2)
    images = sys.modules.get("torchvision.tv_tensors")
    return first if images is None else images.Image(first)


def _of_image(leaf: Any, layout: str) -> Any:
    """The leaf as a plain tensor in the batch's layout, if it still has channels first."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    plain = leaf.as_subclass(torch.Tensor)
    return plain.permute(0, 2, 3, 1).contiguous() if layout == "HWC" and plain.ndim == 4 else plain


def _ragged_parts(ragged: Ragged) -> tuple[list[Any], Any]:
    parts = ragged.map(lambda part: part)
    return [parts._values, parts._offsets], _Context((parts._decode, parts._dims))


def _ragged_of(values: Any, context: Any) -> Ragged:
    return Ragged(*values, *context.content)


def _collated(batches: Sequence[Batch], *, collate_fn_map: Any = None) -> Batch:
    """Unwrap the batch that a DataLoader with the default `batch_size=1` puts into a list to be collated."""
    if len(batches) != 1:
        raise LoaderError(
            "a Loader yields whole batches, and a DataLoader cannot collate several of them",
            hint="DataLoader(…, batch_size=None)",
        )
    return batches[0]


for _class, _parts, _whole in ((Batch, _batch_parts, _batch_of), (Ragged, _ragged_parts, _ragged_of)):
    if _class not in _pytree.SUPPORTED_NODES:  # it is registered if Ctrl-C interrupted the first import of this module
        _pytree.register_pytree_node(_class, _parts, _whole, serialized_type_name=f"mx8shards.{_class.__name__}")
default_collate_fn_map[Batch] = _collated
