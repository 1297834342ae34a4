"""How do programs open a single local shard by Streaming's classes? MDSReader, JSONReader, CSVReader and others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from mx8shards.errors import SettingError, shown
from mx8shards.streaming.shard_files import ShardReader
from mx8shards.streaming.stream_opening import entry_rows


class FormatReader(ShardReader):
    """A reader of shards of one format. `from_json` makes one from a shard's entry in an index."""

    format = ""

    @classmethod
    def from_json(cls, dirname: str, split: str | None, obj: Mapping[str, Any]) -> Self:
        """The reader of a local shard.

        Args:
            dirname: The directory of the dataset.
            split: The split, a sub-directory; None or "" for none.
            obj: The shard's entry in the index, as JSON.
        """
        if obj.get("format") != cls.format:
            raise SettingError(subject="shard", expected=f"the format {cls.format!r}", found=shown(obj.get("format")))
        return cls(dirname, split, obj, entry_rows(dirname, split, obj))


class MDSReader(FormatReader):
    """A reader of an MDS shard."""

    format = "mds"


class JSONReader(FormatReader):
    """A reader of a JSON shard."""

    format = "json"


class XSVReader(FormatReader):
    """A reader of an XSV shard."""

    format = "xsv"


class CSVReader(XSVReader):
    """A reader of a CSV shard."""

    format = "csv"


class TSVReader(XSVReader):
    """A reader of a TSV shard."""

    format = "tsv"
