"""How do ranks exchange values, if torch.distributed is initialized? Thin functions, under Streaming's names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from mx8shards.errors import SettingError
from mx8shards.streaming.world import get_rank, get_world_size


def _is_ready() -> bool:
    return dist.is_available() and dist.is_initialized()


def maybe_init_dist() -> bool:
    """Initialize torch.distributed if there are several ranks, and it is not initialized. Returns whether it did.

    A StreamingDataset does not call it, as it needs no communication.
    """
    if get_world_size() == 1 or not dist.is_available() or dist.is_initialized():
        return False
    backend = "nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, rank=get_rank(), world_size=get_world_size())
    return True


def barrier() -> None:
    """Wait for all ranks."""
    if _is_ready():
        dist.barrier()


def broadcast(tensor: Tensor, src: int) -> None:
    """Copy a tensor to all ranks.

    Args:
        tensor: The tensor, which receives the values on other ranks.
        src: The rank that has the values.
    """
    if _is_ready():
        dist.broadcast(tensor, src)


def all_gather(tensor_list: list[Tensor], tensor: Tensor) -> None:
    """Copy the tensors of all ranks to all ranks.

    Args:
        tensor_list: Receives them.
        tensor: The tensor of this rank.
    """
    if _is_ready():
        dist.all_gather(tensor_list, tensor)


def all_gather_object(obj: Any) -> list[Any]:
    """The objects of all ranks.

    Args:
        obj: The object of this rank.
    """
    if not _is_ready():
        if get_world_size() > 1:
            message = "WORLD_SIZE is above 1, but torch.distributed is not initialized"
            raise SettingError(message, subject="all_gather_object")
        return [obj]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, obj)
    return found
