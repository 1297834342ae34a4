"""Import mosaicml-streaming for tests, with the benchmarks' stub for torchvision and transformers."""

from __future__ import annotations

from benchmarks.adapters.streaming_stub import import_streaming, is_installed

__all__ = ["import_streaming", "is_installed"]
