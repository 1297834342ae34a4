"""The Stream class: where does a part of a StreamingDataset come from, and how much of it is read per epoch?"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.disk import publish
from mx8shards.errors import SettingError, real_number, shown
from mx8shards.format import compression as compressions
from mx8shards.format.hashing import HASHES, hash_hex
from mx8shards.order.mosaicml.stream_weights import StreamWeight, resolve_streams
from mx8shards.shards.links import is_url
from mx8shards.streaming.shard_files import FileInfo

DOWNLOAD_TIMEOUT_S = 60.0
DOWNLOAD_RETRY = 2

_INHERITED = ("download_retry", "download_timeout", "validate_hash", "keep_zip")
# Methods of Streaming's class that are not called here, so that overriding them would change nothing.
_NOT_CALLED = ("_download_file", "_prepare_shard_part", "prepare_shard", "get_shards", "set_up_local")


class Stream:
    """A dataset that a StreamingDataset reads, alone or mixed with others.

    Give at most one of `proportion`, `repeat` and `choose`. What is None is taken from the StreamingDataset.

    Args:
        remote: The URL or the directory that shards are fetched from. None, or the same as `local`: all are local.
        local: The directory for local copies. None: a directory in the cache of mx8shards, named after `remote`, which
            is then asked whether its index has changed.
        split: A sub-directory of `remote` and `local`.
        proportion: Its part of the epoch. All streams of a StreamingDataset need one, or none.
        repeat: How often its samples are read per epoch.
        choose: How many samples are read per epoch.
        download_retry: How many times a file is asked for. Each attempt may take `download_timeout`.
        download_timeout: The number of seconds that the remote may fail to answer.
        validate_hash: The name of a hash that the index must have of each file. Files that are fetched are compared
            with the strongest hash of the index in any case.
        keep_zip: Whether to keep the compressed files that were fetched.
    """

    def __init__(
        self,
        *,
        remote: str | None = None,
        local: str | None = None,
        split: str | None = None,
        proportion: float | None = None,
        repeat: float | None = None,
        choose: int | None = None,
        download_retry: int | None = None,
        download_timeout: float | None = None,
        validate_hash: str | None = None,
        keep_zip: bool | None = None,
    ) -> None:
        self.remote = None if remote is None else os.fspath(remote)
        self._local = None if local is None else os.fspath(local)
        if self._local is not None and is_url(self._local):
            raise SettingError(subject="local", expected="a local directory", found="a URL", hint="remote=… takes it")
        self.local: str = self._local if self._local is not None else _default_directory(self.remote)
        self.split = split or ""
        self._weight = StreamWeight(proportion=proportion, repeat=repeat, choose=choose)
        for name in ("proportion", "repeat", "choose"):
            if getattr(self._weight, name) is not None:
                setattr(self, name, getattr(self._weight, name))
        if download_retry is not None and download_retry < 0:
            raise SettingError(subject="download_retry", expected="at least 0", found=shown(download_retry))
        if download_timeout is not None:
            real_number("download_timeout", download_timeout, "a number above 0", lambda given: given > 0)
        self.download_retry: Any = download_retry
        self.download_timeout: Any = download_timeout
        self.validate_hash = validate_hash
        self.keep_zip: Any = keep_zip

    def apply_default(self, default: Mapping[str, Any]) -> None:
        """Set what was not given.

        Args:
            default: The settings of the StreamingDataset, by name.
        """
        if not (self.remote or self._local):
            raise SettingError(subject="stream", expected="`remote` and/or `local`", found="neither")
        own = [name for name in _NOT_CALLED if hasattr(type(self), name)]
        if own:
            raise SettingError(
                subject=type(self).__name__,
                expected="no methods that mx8shards does not call",
                found=", ".join(own),
                hint="override `_decompress_shard_part`, or fetch files by other means into a directory for `local`",
            )
        self.split = self.split or default.get("split") or ""
        for name in _INHERITED:
            if getattr(self, name) is None:
                setattr(self, name, default.get(name))

    def __getattr__(self, name: str) -> Any:
        hint = ": a StreamingDataset has prepare_shard(shard_id), shards and evict_shard(shard_id)"
        message = f"{type(self).__name__!r} object has no attribute {name!r}{hint if name in _NOT_CALLED else ''}"
        raise AttributeError(message)

    @property
    def directory(self) -> Path:
        """The local directory with the index and the shards."""
        return Path(os.path.abspath(os.path.expanduser(self.local))) / self.split  # noqa: PTH100, PTH111 - no resolving

    @property
    def source(self) -> str | None:
        """The URL, or the absolute path, that shards are fetched from; None if they are all local."""
        if self.remote is None:
            return None
        if is_url(self.remote):
            return f"{self.remote.rstrip('/')}/{self.split}".rstrip("/")
        remote = Path(os.path.abspath(os.path.expanduser(self.remote))) / self.split  # noqa: PTH100, PTH111
        return None if remote == self.directory else str(remote)

    @property
    def asks_for_index(self) -> bool:
        """Whether a copy is compared with the remote: its directory was not chosen by the user, who may not know it."""
        return self._local is None

    @property
    def deadline_s(self) -> float:
        """How many seconds the remote may fail to answer, over all attempts."""
        attempts = DOWNLOAD_RETRY if self.download_retry is None else self.download_retry
        if attempts < 1:
            raise SettingError(subject="download_retry", expected="at least 1, the first attempt", found=f"{attempts}")
        return float(self.download_timeout or DOWNLOAD_TIMEOUT_S) * int(attempts)

    @property
    def safe_keep_zip(self) -> bool:
        """Whether compressed files stay: if they are to be kept, and always where no remote has another copy."""
        return bool(self.keep_zip) or self.source is None

    def get_index_size(self) -> int:
        """The size of the index in bytes."""
        return (self.directory / "index.json").stat().st_size

    def _decompress_shard_part(
        self, zip_info: FileInfo, zip_filename: str, raw_filename: str, compression: str | None
    ) -> None:
        """Decompress one file. Subclasses may override it, for compressions of their own."""
        data = Path(zip_filename).read_bytes()
        if self.validate_hash:
            require_hash(self.validate_hash, zip_info.hashes)
            if hash_hex(self.validate_hash, data) != zip_info.hashes[self.validate_hash]:
                raise ValueError(f"Checksum failure: {zip_filename}")
        raw = data if compression is None else compressions.decompress_whole(compression, data)
        publish.write_quickly(Path(raw_filename), raw)

    @property
    def decompresses_itself(self) -> bool:
        """Whether a subclass overrides the decompression."""
        return type(self)._decompress_shard_part is not Stream._decompress_shard_part

    # weights ----------------------------------------------------------------------------------------------------

    @classmethod
    def validate_weights(cls, streams: Sequence[Stream]) -> tuple[bool, bool]:
        """Whether the weights of streams are relative (proportions), and whether no stream has one.

        Args:
            streams: All streams of a dataset.
        """
        weights = [stream._weight for stream in streams]
        relative = [weight.proportion is not None for weight in weights]
        if any(relative) != all(relative):
            number = relative.index(not relative[0])
            expected = "a proportion for all streams or for none"
            raise SettingError(subject="streams", place=f"stream {number}", expected=expected, found="only some")
        return relative[0], all(weight == StreamWeight() for weight in weights)

    @classmethod
    def apply_weights(
        cls,
        streams: Sequence[Stream],
        samples_per_stream: npt.NDArray[np.int64],
        choose_per_epoch: int | None,
        seed: int,
    ) -> int:
        """Set `proportion`, `repeat` and `choose` of each stream, and return the number of samples of an epoch.

        Args:
            streams: All streams of a dataset.
            samples_per_stream: The number of samples that each has.
            choose_per_epoch: The number of samples of an epoch; None if it follows from the weights.
            seed: The shuffle seed, which decides the streams that get the samples left over by rounding.
        """
        shares = resolve_streams([stream._weight for stream in streams], samples_per_stream, choose_per_epoch, seed)
        for i, stream in enumerate(streams):
            for name in ("proportion", "repeat", "choose"):
                setattr(stream, name, getattr(shares, name)[i].item())
        return shares.epoch_size


def require_hash(name: str, hashes: Collection[str]) -> None:
    """SettingError unless the index has this hash."""
    if name not in hashes:
        known = ", ".join(sorted(hashes)) or "none"
        expected = f"one of the hashes in the index ({known})"
        raise SettingError(subject="validate_hash", expected=expected, found=shown(name))
    if name not in HASHES:
        raise SettingError(subject="validate_hash", expected=f"one of {', '.join(HASHES)}", found=shown(name))


def _default_directory(remote: str | None) -> str:
    """The directory for copies of a remote; "" without one."""
    from mx8shards.remote.mirror import default_directory

    return "" if remote is None else str(default_directory(remote))
