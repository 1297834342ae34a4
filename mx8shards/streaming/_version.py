"""Whose interface is this? The version of MosaicML Streaming, which programs compare."""

from __future__ import annotations

__version__ = "0.13.0"
