"""Which classes of streams can `StreamingDataset(stream_name=…)` make? A registry by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mx8shards.errors import SettingError, shown
from mx8shards.streaming.stream import Stream


class StreamsRegistry(dict[str, Callable[..., Stream]]):
    """Classes of streams, by name."""

    def register(self, name: str, func: Callable[..., Stream] | None = None) -> Any:
        """Register a class, also as a decorator.

        Args:
            name: Its name for `stream_name`.
            func: The class; None to use the result as a decorator.
        """
        if func is None:
            return lambda found: self.register(name, found)
        self[name] = func
        return func


streams_registry = StreamsRegistry(stream=Stream)


def made_stream(name: str, arguments: Mapping[str, Any]) -> Stream:
    """A stream of the class with this name."""
    if name not in streams_registry:
        known = ", ".join(streams_registry)
        raise SettingError(subject="stream_name", expected=f"one of {known}", found=shown(name))
    return streams_registry[name](**arguments)
