"""Does mosaicml-streaming read a dataset of videos, with its packet indices?"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from tests.conformance.streaming_peer import read_local
from tests.videos import decoded, video

av = pytest.importorskip("av")


@pytest.mark.parametrize("options", [{}, {"clip_seconds": 0.5}], ids=["whole", "parts"])
def test_streaming_reads_all_columns_of_videos(options: dict[str, Any], streaming: Any, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for form in ("open", "vfr"):
        (tmp_path / f"videos/{form}.mp4").write_bytes(video("h264", form).data)
    mx8.convert_from("videofolder", tmp_path / "videos", tmp_path / "data", **options)
    found = read_local(streaming, tmp_path / "data")
    with mx8.Dataset(tmp_path / "data") as dataset:
        assert found == list(dataset)
    with av.open(io.BytesIO(found[0]["video"])) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    numbers = [number for sample in found for _, number in decoded(sample["video"])]
    assert numbers == list(range(40)) * 2
