"""The StreamingDataset class: MosaicML Streaming's dataset, with the same arguments, samples, order and state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from mx8shards.errors import SettingError, whole_number
from mx8shards.order.mosaicml.epoch_plan import EpochPlan, plan_epoch
from mx8shards.order.mosaicml.epoch_settings import EpochSettings, default_block_size, default_canonical_nodes
from mx8shards.order.mosaicml.resampling import resampled
from mx8shards.order.mosaicml.stream_weights import StreamShares
from mx8shards.order.mosaicml.training_world import Reader
from mx8shards.streaming.all_samples import AllSamples
from mx8shards.streaming.compatible_errors import EmptyStreamError
from mx8shards.streaming.dataset_facts import StreamFacts
from mx8shards.streaming.iteration import samples_of
from mx8shards.streaming.iteration_settings import (
    check_limit,
    check_methods,
    limit_of,
    listed,
    samples_ahead,
    samples_per_epoch,
)
from mx8shards.streaming.loader_batch import batch_size_of_dataloader
from mx8shards.streaming.plan_ahead import MOST_SENT, PlanAhead
from mx8shards.streaming.plan_before_fork import plan_before_spawn, share_plans
from mx8shards.streaming.resume_point import Resumed, ResumePoint
from mx8shards.streaming.shuffle_window import shuffle_window, warn_of_small_limit
from mx8shards.streaming.stream import Stream
from mx8shards.streaming.stream_opening import open_streams
from mx8shards.streaming.streams_registry import made_stream
from mx8shards.streaming.world import World

if TYPE_CHECKING:
    from mx8shards.loading.loader import Loader


class StreamingDataset(StreamFacts, IterableDataset[Any]):
    """A dataset whose samples are read from one or several streams, in the order of MosaicML Streaming.

    It is iterated, alone or in the workers of a DataLoader, and every iteration is the next epoch. It is also a
    sequence: `dataset[i]`. Subclasses may override `__getitem__`, `get_item` and `__iter__`.

    Args:
        streams: The streams. Give either these, or `remote` and `local` of a single stream.
        remote: The URL or the directory that shards are fetched from.
        local: The directory for local copies, or with the dataset if there is no `remote`.
        split: A sub-directory of both.
        download_retry: How many times a file is asked for.
        download_timeout: The number of seconds that the remote may fail to answer, per attempt.
        validate_hash: The name of a hash that the index must have of each file.
        keep_zip: Whether to keep the compressed files that were fetched.
        epoch_size: The number of samples of an epoch, as a number or as `"64M"`. None: as the streams' weights say.
        predownload: For how many samples, per worker, to fetch shards ahead. None: eight batches.
        cache_limit: The most bytes of shards to keep of what was fetched, of all streams together, as a number or as
            `"100gb"`. Local streams have no copies, so they lose nothing.
        sampling_method: Which samples of a stream are read if these are not all: other ones in each epoch
            (`"balanced"`), or always the same (`"fixed"`).
        sampling_granularity: How many samples at a time are taken from a shard of such a stream.
        partition_algo: How samples are divided among nodes, ranks and workers: `"relaxed"` or `"orig"`.
        num_canonical_nodes: The number of parts into which samples are divided before they are shuffled.
        batch_size: The batch size of the DataLoader. None: that of the DataLoader that asks.
        shuffle: Whether to shuffle.
        shuffle_algo: `"py1e"`, `"py1br"`, `"py1s"`, `"py2s"` or `"naive"`.
        shuffle_seed: The seed.
        shuffle_block_size: Over how many samples to shuffle, for py1e and py1br.
        batching_method: Which streams share a batch: `"random"`, `"stratified"`, `"per_stream"` or
            `"device_per_stream"`.
        allow_unsafe_types: Also read columns whose decoding runs code (`pkl`).
        replication: How many consecutive ranks read the same samples.
        stream_name: The name of a registered class of streams for `remote` and `local`.
        stream_config: Further arguments for that class.
    """

    cache_limit: int | str | None
    sampling_method: str
    sampling_granularity: int
    partition_algo: str
    num_canonical_nodes: int | None
    batch_size: int | None
    shuffle: bool
    shuffle_algo: str
    shuffle_seed: int
    shuffle_block_size: int | None
    batching_method: str
    allow_unsafe_types: bool
    replication: int | None

    def __init__(
        self,
        *,
        streams: Sequence[Stream] | None = None,
        remote: str | None = None,
        local: str | None = None,
        split: str | None = None,
        download_retry: int = 2,
        download_timeout: float = 60,
        validate_hash: str | None = None,
        keep_zip: bool = False,
        epoch_size: int | str | None = None,
        predownload: int | None = None,
        cache_limit: int | str | None = None,
        sampling_method: str = "balanced",
        sampling_granularity: int = 1,
        partition_algo: str = "relaxed",
        num_canonical_nodes: int | None = None,
        batch_size: int | None = None,
        shuffle: bool = False,
        shuffle_algo: str = "py1e",
        shuffle_seed: int = 9176,
        shuffle_block_size: int | None = None,
        batching_method: str = "random",
        allow_unsafe_types: bool = False,
        replication: int | None = None,
        stream_name: str = "stream",
        stream_config: Mapping[str, Any] | None = None,
    ) -> None:
        if bool(streams) == (bool(remote) or bool(local)):
            expected = "either `streams`, or `remote` and/or `local`"
            raise SettingError(subject="streams", expected=expected, found="both" if streams else "neither")
        check_methods(sampling_method, sampling_granularity, batching_method, shuffle_seed)
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        for name in _OWN:
            setattr(self, name, arguments[name])
        self.predownload = samples_ahead(predownload, batch_size)
        default = {name: arguments[name] for name in _OF_STREAMS}
        if streams:
            streams = listed(streams)
        else:
            streams = [made_stream(stream_name, {**(stream_config or {}), "remote": remote, "local": local, **default})]
        for stream in streams:
            stream.apply_default(default)
        Stream.validate_weights(streams)
        self._open(streams, samples_per_epoch(epoch_size))

    def _open(self, streams: list[Stream], epoch_size: int | None) -> None:
        """Open the streams, and set what follows from their indices."""
        self._unique_rank_world = World.detect()
        replication, world = self.replication, self._unique_rank_world
        self._parallel_rank_world = world.copy() if replication is None else world.replicate(replication)
        self.initial_physical_nodes: int | None = None
        self.streams, self.num_streams = streams, len(streams)
        limit = self.cache_limit = limit_of(self.cache_limit)
        opened = open_streams(streams, cache_limit=limit, allow_unsafe_types=self.allow_unsafe_types)
        self._samples = AllSamples(opened)
        _require_samples(self._samples, streams)
        if limit:
            check_limit(limit, streams, opened)
            self._warn_of_small_limit(limit)
        counts = self._samples.samples_per_stream
        self.epoch_size = Stream.apply_weights(streams, counts, epoch_size, self.shuffle_seed)
        self.length = ceil(self.epoch_size / self._parallel_rank_world.num_ranks)
        self._resume_point = ResumePoint()
        self._ahead = PlanAhead()

    def _warn_of_small_limit(self, limit: int) -> None:
        if self.shuffle and self._unique_rank_world.is_local_leader:
            nodes = self._parallel_rank_world.num_nodes
            window = shuffle_window(self.shuffle_algo, self.num_canonical_nodes, self.shuffle_block_size, nodes)
            warn_of_small_limit(limit, self._samples.limited, self.samples_per_shard, window, nodes)

    def __len__(self) -> int:
        """The number of samples of an epoch for one rank."""
        return self.length

    # samples ----------------------------------------------------------------------------------------------------

    def get_item(self, sample_id: int, retry: int = 7) -> Any:
        """One sample. Its shard is fetched if it is not here.

        Args:
            sample_id: The number of the sample, over all streams.
            retry: Ignored: a shard that another process removes meanwhile is fetched again.
        """
        return self._samples[sample_id]

    _plain_get_item = get_item

    def __iter__(self) -> Iterator[Any]:
        """The samples of the next epoch for this worker, from where a loaded state ended."""
        if get_worker_info() is None:
            self._unique_rank_world.warn_if_late()
        epoch, resumed = self._resume_point.start()
        world = self._parallel_rank_world.detect_workers()
        self._resume(resumed)
        sample_in_epoch = resumed.sample_in_epoch if resumed else 0
        batch_size = (batch_size_of_dataloader() or 1) if self.batch_size is None else self.batch_size
        of_rank, _ = self._planned(world, epoch, sample_in_epoch, batch_size, of_rank=True)
        plan = self._ahead.shared(of_rank)
        if plan is None:
            plan = self._ahead.take(*self._planned(world, epoch, sample_in_epoch, batch_size))
        self._ahead.begin(self.epoch_size, *self._planned(world, epoch + 1, 0, batch_size))
        get = self.__getitem__ if self._is_overridden else None
        yield from samples_of(self._samples, plan, world, self.predownload, get)

    def _plan_for_workers(self, workers: int, batch_size: int) -> Callable[[], None]:
        """Make the next iteration's plan, which workers share, instead of making one each.

        Returns a function that begins to make the plan of the iteration after that, to be called after the fork.
        """
        self._unique_rank_world.warn_if_late()
        epoch, sample_in_epoch = self._upcoming()
        world = self._parallel_rank_world.with_workers(workers)
        size = batch_size if self.batch_size is None else self.batch_size
        self._ahead.share(*self._planned(world, epoch, sample_in_epoch, size, of_rank=True))
        following = self._planned(world, epoch + 1, 0, size, of_rank=True)
        return partial(self._ahead.begin, self.epoch_size, *following)

    def __getstate__(self) -> Any:
        if self.epoch_size <= MOST_SENT:
            plan_before_spawn(self, self._plan_for_workers)
        return super().__getstate__()

    def _planned(
        self, world: World, epoch: int, sample_in_epoch: int, batch_size: int, *, of_rank: bool = False
    ) -> tuple[Hashable, Callable[[], EpochPlan]]:
        """What the plan of an epoch depends on, and a function that makes it: for one worker, or a rank with all."""
        settings, nodes = self._epoch_settings(batch_size), self.initial_physical_nodes
        reader = Reader(node=world.node, rank=world.rank_of_node, worker=None if of_rank else world.worker_of_rank)
        key = (epoch, sample_in_epoch, batch_size, nodes, world.counts, reader)
        make = partial(plan_epoch, initial_nodes=nodes, reader=reader)
        key = (*key, *(getattr(self, name) for name in _OF_ORDER), *settings.shares.choose.tolist())
        return key, partial(make, settings, world.counts, epoch, sample_in_epoch)

    def _epoch_settings(self, batch_size: int) -> EpochSettings:
        assert self.num_canonical_nodes is not None
        assert self.shuffle_block_size is not None
        choose, proportion, repeat = (
            np.array([getattr(stream, name) for stream in self.streams]) for name in ("choose", "proportion", "repeat")
        )
        return EpochSettings(
            samples_per_shard=self.samples_per_shard,
            shards_per_stream=self.shards_per_stream,
            shares=StreamShares(choose=choose, proportion=proportion, repeat=repeat, epoch_size=self.epoch_size),
            batch_size=batch_size,
            **{name: getattr(self, name) for name in _OF_ORDER},
        )

    def resample_streams(self, epoch: int, stream_id: int | None = None) -> tuple[Any, Any]:
        """The units and the samples of an epoch before it is shuffled. Each unit is a number of samples of one shard.

        Args:
            epoch: The epoch.
            stream_id: The stream; None for all.
        """
        self._resume(None)
        streams = range(self.num_streams) if stream_id is None else range(stream_id, stream_id + 1)
        rows = resampled(self._epoch_settings(self.batch_size or 1), epoch, streams)
        return rows.sizes, rows.at(np.arange(len(rows)))

    # state ------------------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration this epoch, from its beginning. Trainers of Hugging Face call it before each epoch.

        Like a state of an earlier epoch, an epoch that is not later than that of the next iteration changes nothing.
        So the position stays if the next iteration is the rest of this epoch, after `load_state_dict`.

        Args:
            epoch: Its number, from 0.
        """
        if whole_number("epoch", epoch, 0) > self._resume_point.upcoming()[0]:
            self._resume_point.begin(epoch)

    @property
    def next_epoch(self) -> int:
        """The epoch of the next iteration, unless a state was loaded."""
        return self._resume_point.next_epoch

    @next_epoch.setter
    def next_epoch(self, next_epoch: int) -> None:
        self._resume_point.begin(next_epoch)

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        """The state after a number of samples, which this class and Streaming's resume from.

        Args:
            num_samples: The number of samples of all ranks, without repeats by `replication`.
            from_beginning: Whether they count from the beginning of the epoch; False: from where it was resumed.
        """
        epoch, offset = self._resume_point.next_epoch - 1, 0
        loaded = self._resume_point.loaded()
        if loaded is not None and loaded.epoch >= epoch:
            epoch, offset = loaded.epoch, loaded.sample_in_epoch
        self._resume(loaded if loaded is not None and loaded.epoch == epoch else None)
        nodes = self.initial_physical_nodes
        return {
            "epoch": epoch,
            "sample_in_epoch": num_samples if from_beginning else offset + num_samples,
            "num_canonical_nodes": self.num_canonical_nodes,
            "shuffle_seed": self.shuffle_seed,
            "initial_physical_nodes": self._parallel_rank_world.num_nodes if nodes is None else nodes,
        }

    def load_state_dict(self, obj: Mapping[str, Any]) -> None:
        """Resume from a state of this class or of Streaming's. The next iteration is the rest of its epoch.

        A state of an earlier epoch than the next one is ignored.

        Args:
            obj: The state.
        """
        self._resume_point.load(obj)

    def _upcoming(self) -> tuple[int, int]:
        """Epoch and sample at which the next iteration begins."""
        epoch, resumed = self._resume_point.upcoming()
        self._resume(resumed)
        return epoch, resumed.sample_in_epoch if resumed else 0

    def _resume(self, resumed: Resumed | None) -> None:
        """Take over the settings of a loaded state, and set those that follow from others."""
        if resumed is not None:
            self.num_canonical_nodes = resumed.num_canonical_nodes
            self.shuffle_seed = resumed.shuffle_seed
            self.initial_physical_nodes = resumed.initial_physical_nodes
        if not self.num_canonical_nodes:
            nodes = self._parallel_rank_world.num_nodes
            self.num_canonical_nodes = default_canonical_nodes(self.shuffle_algo, nodes)
        if self.shuffle_block_size is None:
            self.shuffle_block_size = default_block_size(self.num_canonical_nodes)

    def loader(self, **settings: Any) -> Loader:
        """A Loader of mx8shards: whole batches of the same samples in the same order, from where a state was loaded.

        Its batches are those of a DataLoader without workers, and with `drop_last` where an epoch ends with a part of a
        batch only. Its epochs are counted, and its state is saved, by itself. It calls no `__getitem__` of a subclass.

        Args:
            settings: Arguments of `mx8shards.Loader` other than those that follow from this dataset, such as `columns`,
                `decode`, `transform`, `device` and `memory`; `batch_size` if this dataset has none.
        """
        from mx8shards.streaming.native_loader import loader_batch_size, native_loader  # it imports much

        if self._is_overridden and not (settings.get("transform") or settings.get("decode")):
            message = f"a Loader reads columns as they are stored, and calls no __getitem__ of {type(self).__name__}"
            warnings.warn(f"{message}: transform= takes a function of whole batches", stacklevel=2)
        begin = self._upcoming()
        return native_loader(
            self._samples,
            self._epoch_settings(loader_batch_size(self.batch_size, settings.pop("batch_size", None))),
            self._parallel_rank_world,
            begin,
            allow_pickle=self.allow_unsafe_types,
            settings=settings,
        )


share_plans(StreamingDataset, StreamingDataset._plan_for_workers)

_OF_STREAMS = ("split", "download_retry", "download_timeout", "validate_hash", "keep_zip")
_OF_ORDER = (
    *("num_canonical_nodes", "sampling_method", "sampling_granularity", "partition_algo", "shuffle", "shuffle_algo"),
    *("shuffle_seed", "shuffle_block_size", "batching_method"),
)
_OWN = (*_OF_ORDER, "cache_limit", "batch_size", "allow_unsafe_types", "replication")


def _require_samples(samples: AllSamples, streams: Sequence[Stream]) -> None:
    for count, stream in zip(samples.samples_per_stream.tolist(), streams, strict=True):
        if not count:
            raise EmptyStreamError("the stream contains no samples", subject=str(stream.directory))
