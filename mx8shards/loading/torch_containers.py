"""How do torch's own tools look into a batch: pytrees, and the collation of a DataLoader?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from torch.utils import _pytree
from torch.utils.data._utils.collate import default_collate_fn_map

from mx8shards.errors import LoaderError
from mx8shards.loading.batch import Batch
from mx8shards.loading.ragged import Ragged


class _Beside:
    """What a container has beside its tensors. It is no part of the structure: all of these are equal."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Beside)

    def __hash__(self) -> int:
        return 0


@cache
def register_batches() -> None:
    """Make batches and ragged rows pytrees, and have a DataLoader that collates leave batches as they are."""
    _pytree.register_pytree_node(Batch, _batch_parts, _batch_of, serialized_type_name="mx8shards.Batch")
    _pytree.register_pytree_node(Ragged, _ragged_parts, _ragged_of, serialized_type_name="mx8shards.Ragged")
    default_collate_fn_map[Batch] = _collated


def _batch_parts(batch: Batch) -> tuple[list[Any], Any]:
    return list(batch.values()), (tuple(batch), _Beside(batch._rows))


def _batch_of(values: Any, context: Any) -> Batch:
    names, rows = context
    return Batch(dict(zip(names, values, strict=True)), *rows.content)


def _ragged_parts(ragged: Ragged) -> tuple[list[Any], Any]:
    parts = ragged.map(lambda part: part)
    return [parts._values, parts._offsets], _Beside((parts._decode, parts._dims))


def _ragged_of(values: Any, context: Any) -> Ragged:
    return Ragged(*values, *context.content)


def _collated(batches: Sequence[Batch], *, collate_fn_map: Any = None) -> Batch:
    """The one batch that `DataLoader(…, batch_size=1)`, its default, puts into a list to be collated."""
    if len(batches) != 1:
        raise LoaderError(
            "what a Loader gives is a batch already, and a DataLoader does not collate several",
            hint="DataLoader(…, batch_size=None)",
        )
    return batches[0]
