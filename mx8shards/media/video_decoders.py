"""Which decoders of videos are open? Threads take one, use it alone and return it; together they have a memory limit.

An open decoder is reused for a video with the same codec, size and extradata, after its state was reset. A decoder that
nobody uses is closed when its memory is needed, or when no stage is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Any, NamedTuple

from mx8shards.errors import DecodeError, LoaderError, require
from mx8shards.format.packet_index import CODECS, VideoFacts
from mx8shards.media.video_memory import Described, decoder_bytes

_NAMES = {"av1": "libdav1d"}  # FFmpeg's own decoder "av1" needs a GPU
_EDGES = 256  # pixels that decoders may allocate beside and below a frame
_POLL_S = 0.1  # interval at which a thread that waits for memory checks whether its batch is still wanted


def never() -> bool:
    """The default of `is_stopped`: nothing stops it."""
    return False


def check_wanted(is_stopped: Callable[[], bool]) -> None:
    """LoaderError if the batch is not wanted any more."""
    if is_stopped():
        raise LoaderError("the run was stopped")


# Opens a decoder for a video: of PyAV, or one that kernels call.
Open = Callable[[Described], Any]


class _Key(NamedTuple):
    """What two videos must have in common to be decoded by one decoder in turn, and who opened it."""

    open: Open
    codec: str
    width: int
    height: int
    extradata: bytes


class _Idle(NamedTuple):
    key: _Key
    size_bytes: int
    context: Any


class Decoders:
    """The decoders that all threads of a pool share, within `most_bytes`."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._changed = Condition()
        self._used_bytes = 0  # of those in use and of idle ones
        self._idle: list[_Idle] = []
        self._users = 0
        self._waiting_bytes: list[int] = []  # what each thread waits for

    def join(self) -> None:
        """A thread begins to use them."""
        with self._changed:
            self._users += 1

    def leave(self) -> None:
        """A thread ends; the last one closes all."""
        with self._changed:
            self._users -= 1
            if not self._users:
                self._close_idle(self.most_bytes)

    def wait(self) -> str:
        """Why threads wait, if some do."""
        with self._changed:
            if not self._waiting_bytes:
                return ""
            wanted = ", ".join(map(str, self._waiting_bytes))
            return f"threads wait for {wanted} bytes of decoders, which have {self._used_bytes} of {self.most_bytes}"

    @contextmanager
    def decoder(
        self, index: Described, is_stopped: Callable[[], bool] = never, opened: Open | None = None
    ) -> Iterator[Any]:
        """A decoder for this video, which no other thread uses meanwhile. It has decoded nothing yet, or was reset.

        `opened` opens it, without memory of its own: PyAV does by default.
        """
        opened = opened or _opened
        key = _Key(opened, index.facts.codec, index.facts.width, index.facts.height, index.extradata)
        size = decoder_bytes(index)
        with self.memory(size, is_stopped, key) as idle:
            context = opened(index) if idle is None else idle
            done = False
            try:
                yield context
                done = True
            finally:
                if done:  # after an error its state is unknown
                    context.flush_buffers()
                    self._keep(_Idle(key, size, context))

    @contextmanager
    def memory(self, size_bytes: int, is_stopped: Callable[[], bool] = never, key: _Key | None = None) -> Iterator[Any]:
        """Reserve memory for a decoder; wait until there is enough. Gives an idle decoder with this key, or None.

        LoaderError if `is_stopped` says meanwhile that the batch is not wanted any more.
        """
        if size_bytes > self.most_bytes:
            raise DecodeError(
                expected=f"a video that is decoded in {self.most_bytes} bytes, an eighth of memory=",
                found=f"one that may take {size_bytes}",
                hint=f"memory={8 * size_bytes}",
                reason="unsupported",
            )
        found = self._reserve(size_bytes, is_stopped, key)
        try:
            yield found
        finally:
            found = None
            with self._changed:
                self._used_bytes -= size_bytes
                self._changed.notify_all()

    def _reserve(self, size_bytes: int, is_stopped: Callable[[], bool], key: _Key | None) -> Any:
        with self._changed:
            while True:
                for at, idle in enumerate(self._idle):
                    if idle.key == key and idle.size_bytes == size_bytes:
                        return self._idle.pop(at).context
                self._close_idle(self._used_bytes + size_bytes - self.most_bytes)
                if self._used_bytes + size_bytes <= self.most_bytes:
                    self._used_bytes += size_bytes
                    return None
                check_wanted(is_stopped)
                self._wait_for_change(size_bytes)

    def _wait_for_change(self, size_bytes: int) -> None:
        self._waiting_bytes.append(size_bytes)
        try:
            self._changed.wait(_POLL_S)
        finally:
            self._waiting_bytes.remove(size_bytes)

    def _keep(self, idle: _Idle) -> None:
        with self._changed:
            if self._users:
                self._idle.append(idle)
                self._used_bytes += idle.size_bytes

    def _close_idle(self, size_bytes: int) -> None:
        """Close idle decoders, the longest idle first, until they have freed this many bytes or none is left."""
        while size_bytes > 0 and self._idle:
            oldest = self._idle.pop(0)
            self._used_bytes -= oldest.size_bytes
            size_bytes -= oldest.size_bytes


def most_pixels(facts: VideoFacts) -> int:
    """How many pixels decoders may allocate for a frame."""
    return (facts.width + _EDGES) * (facts.height + _EDGES)


def decoder_name(facts: VideoFacts) -> str:
    """FFmpeg's name of the decoder of a video. DecodeError for a codec that is not decoded."""
    if facts.codec not in CODECS:
        raise DecodeError(expected=f"one of the codecs {', '.join(CODECS)}", found=facts.codec, reason="unsupported")
    return _NAMES.get(facts.codec, facts.codec)


def open_options(facts: VideoFacts) -> dict[str, str]:
    """FFmpeg's options for the decoder of a video."""
    return {"max_pixels": str(most_pixels(facts))}


def _opened(index: Described) -> Any:
    """A new decoder of PyAV with one thread, that refuses frames of more pixels than the index says."""
    codec_module = require("av.codec", "video")
    facts = index.facts
    name = decoder_name(facts)
    try:
        codec = codec_module.Codec(name, "r")
        context = codec_module.CodecContext.create(codec, "r")
    except ValueError as error:  # UnknownCodecError
        raise DecodeError(expected="a codec that FFmpeg decodes", found=facts.codec, reason="unsupported") from error
    context.width, context.height = facts.width, facts.height
    context.extradata = index.extradata or None
    context.thread_count = 1
    context.options = open_options(facts)
    context.open()
    return context
