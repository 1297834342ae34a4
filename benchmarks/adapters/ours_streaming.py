"""How is our drop-in for mosaicml-streaming read? By the code that reads the original, with another import."""

from __future__ import annotations

from functools import partial

from benchmarks.adapters import streaming_classes
from mx8shards import streaming
from mx8shards.streaming import StreamingDataLoader, StreamingDataset

LOADED = (StreamingDataset, StreamingDataLoader)  # the package imports its modules when a class is first used

open_samples = partial(streaming_classes.open_samples, streaming)
open_loader = partial(streaming_classes.open_loader, streaming)
open_indexed = partial(streaming_classes.open_indexed, streaming)
open_workers = partial(streaming_classes.open_workers, streaming)
