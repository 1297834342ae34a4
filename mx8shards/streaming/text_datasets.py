"""Streaming's datasets of texts: samples are tokenized when they are read."""

from __future__ import annotations

from typing import Any

import numpy as np

from mx8shards.errors import one_of, require
from mx8shards.streaming.streaming_dataset import StreamingDataset
from mx8shards.streaming.vision_datasets import OLD_DEFAULTS

__all__ = ["StreamingC4", "StreamingEnWiki", "StreamingPile"]


class _TokenizedDataset(StreamingDataset):
    """A dataset with a column `text`, which is tokenized to a fixed length.

    Args:
        tokenizer_name: The name of a tokenizer of transformers.
        max_seq_len: The length of each sample in tokens.
        group_method: `"truncate"`: longer texts are cut off.
        kwargs: The arguments of StreamingDataset.
    """

    def __init__(self, *, tokenizer_name: str, max_seq_len: int, group_method: str, **kwargs: Any) -> None:
        one_of("group_method", group_method, ("truncate",))
        super().__init__(**{**OLD_DEFAULTS, **kwargs})
        self.tokenizer_name = tokenizer_name
        self.max_seq_len = max_seq_len
        self.group_method = group_method
        self.tokenizer = require("transformers", None).AutoTokenizer.from_pretrained(tokenizer_name)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def get_item(self, sample_id: int, retry: int = 7) -> Any:
        """The tokens of a text.

        Args:
            sample_id: The number of the sample.
            retry: Ignored.
        """
        text = super().get_item(sample_id)["text"]
        return self.tokenizer(text, truncation=True, padding="max_length", max_length=self.max_seq_len)


class StreamingC4(_TokenizedDataset):
    """C4: texts of the web."""


class StreamingPile(_TokenizedDataset):
    """The Pile."""


class StreamingEnWiki(StreamingDataset):
    """The English Wikipedia, tokenized for BERT. The arguments are those of StreamingDataset."""

    _FLOATS = ("masked_lm_weights",)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**OLD_DEFAULTS, **kwargs})

    def get_item(self, sample_id: int, retry: int = 7) -> Any:
        """The inputs of BERT, with -100 as the label of tokens that are not masked.

        Args:
            sample_id: The number of the sample.
            retry: Ignored.
        """
        stored = super().get_item(sample_id)
        found = {
            name: np.frombuffer(value, np.float32 if name in self._FLOATS else np.int32)
            for name, value in stored.items()
        }
        labels = np.full(len(found["input_ids"]), -100)
        labels[found["masked_lm_positions"]] = found["masked_lm_ids"]
        inputs = {"input_ids": "input_ids", "token_type_ids": "segment_ids", "attention_mask": "input_mask"}
        return {**{name: found[column].copy() for name, column in inputs.items()}, "labels": labels}
