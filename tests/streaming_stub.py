"""Where do the tests get mosaicml-streaming from? The benchmarks need it as well, so it is told there."""

from __future__ import annotations

from benchmarks.adapters.streaming_stub import import_streaming, is_installed

__all__ = ["import_streaming", "is_installed"]
