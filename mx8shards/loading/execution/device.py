"""How are batches copied to a GPU? From pinned banks, on a separate CUDA stream.

Banks are registered as pinned memory, so that the GPU copies from them directly. The copy of the next batch overlaps
with the current training step. A bank returns when its copy is done.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Any, NamedTuple

from mx8shards.errors import LoaderError, SettingError, require
from mx8shards.loading.batch import relocated

_PORTABLE = 1  # pinned for every device's context


class Moving(NamedTuple):
    """A batch whose copy to the device has begun, and the event of the copy's end."""

    value: Any
    done: Any


class Mover:
    """Copies batches to one CUDA device."""

    def __init__(self, device: str) -> None:
        self._torch = require("torch", "torch")
        if not self._torch.cuda.is_available():
            raise SettingError(
                subject="device", expected="'cpu', as torch sees no CUDA device here", found=repr(device)
            )
        self._device = self._torch.device(device)
        self._index = self._device.index if self._device.index is not None else self._torch.cuda.current_device()
        count = self._torch.cuda.device_count()
        if self._index >= count:
            expected = f"'cuda:0' to 'cuda:{count - 1}', which torch sees here"
            raise SettingError(subject="device", expected=expected, found=repr(device))
        self._device = self._torch.device("cuda", self._index)
        self._stream = self._torch.cuda.Stream(self._device)
        self._lock = Lock()
        self._under_way: deque[tuple[Any, Any]] = deque()  # keeps their banks leased until the copies are done

    def pin(self, address: int, size_bytes: int) -> None:
        """Register a bank as pinned memory."""
        with self._torch.cuda.device(self._index):  # a new thread's current device is device 0
            self._check(self._torch.cuda.cudart().cudaHostRegister(address, size_bytes, _PORTABLE))

    def unpin(self, address: int) -> None:
        """Unregister a bank."""
        self._check(self._torch.cuda.cudart().cudaHostUnregister(address))

    def start(self, value: Any) -> Moving:
        """Begin to copy all tensors of a batch, or of the value that a transform returned."""
        with self._torch.cuda.stream(self._stream):
            moved = relocated(value, self._moved)
            done = self._stream.record_event()
        self._under_way.append((value, done))
        return Moving(moved, done)

    def finish(self, moving: Moving) -> Any:
        """The value on the device. The current stream waits for the copy; the caller does not."""
        stream = self._torch.cuda.current_stream(self._device)
        stream.wait_event(moving.done)

        def in_use(value: Any) -> Any:
            if isinstance(value, self._torch.Tensor) and value.is_cuda:
                value.record_stream(stream)
            return value

        relocated(moving.value, in_use)
        self.release()
        return moving.value

    @property
    def is_busy(self) -> bool:
        """Whether copies are under way, or are done but not released."""
        return bool(self._under_way)

    def release(self) -> None:
        """Release the batches whose copies are done. It is thread-safe."""
        with self._lock:
            while self._under_way and self._under_way[0][1].query():
                self._under_way.popleft()

    def wait(self) -> None:
        """Wait until all copies are done and release their batches."""
        with self._lock:
            while self._under_way:
                self._under_way.popleft()[1].synchronize()

    def _moved(self, value: Any) -> Any:
        return value.to(self._device, non_blocking=True) if isinstance(value, self._torch.Tensor) else value

    def _check(self, code: Any) -> None:
        if int(code):
            raise LoaderError(f"CUDA could not register a bank as pinned memory: error {int(code)}")
