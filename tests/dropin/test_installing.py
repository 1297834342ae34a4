"""Does `install()` make `import streaming` ours, in a process of its own? Are the public names documented?"""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from docs.generate import arguments, docstring, members
from mx8shards import streaming

INSTALLED = """
import sys, warnings
import mx8shards.streaming
mx8shards.streaming.install()
mx8shards.streaming.install()
import streaming, streaming.base.util
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
from streaming.base.array import Array
from streaming.base.compression import compress, decompress
from streaming.base.converters import dataframe_to_mds
from streaming.base.distributed import all_gather_object, barrier, get_rank, get_world_size
from streaming.base.format import MDSWriter as SameWriter
from streaming.base.format.index import get_index_basename
from streaming.base.format.mds.encodings import _encodings, mds_decode, mds_encode
from streaming.base.hashing import get_hash, is_hash
from streaming.base.stream import Stream, streams_registry
from streaming.base.util import bytes_to_int, number_abbrev_to_int, retry
from streaming.vision import StreamingVisionDataset
from streaming.text import StreamingC4
from streaming.multimodal import StreamingInsideWebVid
assert streaming.__version__ == "0.13.0" != mx8shards.__version__
assert streaming is mx8shards.streaming and SameWriter is MDSWriter
assert streaming.base.util is sys.modules["mx8shards.streaming.base.util"]
assert issubclass(StreamingDataset, Array) and issubclass(StreamingVisionDataset, StreamingDataset)
assert decompress("zstd:3", compress("zstd:3", b"abc")) == b"abc" == decompress(None, compress(None, b"abc"))
assert bytes_to_int("2kb") == 2048 and number_abbrev_to_int("1.5k") == 1500
assert mds_decode("int", mds_encode("int", 5)) == 5 and set(_encodings) >= {"uint8", "ndarray"}
assert (get_rank(), get_world_size(), all_gather_object(3), barrier()) == (0, 1, [3], None)
assert is_hash("sha1") and get_hash("sha1", b"") == "da39a3ee5e6b4b0d3255bfef95601890afd80709"
assert streams_registry["stream"] is Stream and get_index_basename() == "index.json"
calls = []
@retry(KeyError, num_attempts=3, initial_backoff=0.001, max_jitter=0)
def third_time():
    calls.append(1)
    if len(calls) < 3:
        raise KeyError
    return "done"
assert third_time() == "done"
try:
    import streaming.simulation
except ModuleNotFoundError as error:
    print(error)
assert "numba" not in sys.modules and "transformers" not in sys.modules
"""

TOO_LATE = """
import sys, types
sys.modules["streaming"] = types.ModuleType("streaming")
import mx8shards.streaming
mx8shards.streaming.install()
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)


def test_streaming_and_its_modules_are_ours_after_install() -> None:
    done = run(INSTALLED)
    assert done.returncode == 0, done.stderr
    assert "No module named 'streaming.simulation'" in done.stdout


def test_install_after_the_import_is_an_error() -> None:
    assert "call install() first" in run(TOO_LATE).stderr


CLASSES = [getattr(streaming, name) for name in streaming.__all__]
METHODS = {
    f"{kind.__name__}.{name}": found
    for kind in CLASSES
    if isinstance(kind, type)
    for name, found in members(kind)
    if (found.__module__ if hasattr(found, "__module__") else "").startswith("mx8shards")
}


@pytest.mark.parametrize("what", [*CLASSES, *METHODS.values()], ids=[*streaming.__all__, *METHODS])
def test_every_public_name_and_argument_is_explained(what: object) -> None:
    text = docstring(what)
    assert text
    if what in (streaming.CSVWriter, streaming.TSVWriter, streaming.StreamingDataLoader):
        return  # their arguments are those of another class, as they say
    if isinstance(what, type) or inspect.isfunction(what):
        expected = [name for name in inspect.signature(what).parameters if name != "self"]
        assert sorted(arguments(text)) == sorted(expected)
