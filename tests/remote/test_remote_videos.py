"""Are videos in a store converted as those of an equal local folder?"""

from __future__ import annotations

from typing import Any

import pytest

import mx8shards as mx8
from tests.videos import video

pytest.importorskip("av")

FILES = {"jump/1.mp4": ("h264", "open"), "run/2.mp4": ("vp9", "vfr"), "run/3.ts": ("h264", "negative start")}


@pytest.mark.parametrize(("workers", "options"), [(1, {}), (2, {"clip_seconds": 0.5})], ids=["whole", "parts"])
def test_videos_in_a_store_make_the_dataset_of_the_equal_local_folder(
    workers: int, options: dict[str, Any], fault_server, tmp_path
) -> None:
    for name, cell in FILES.items():
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).write_bytes(video(*cell).data)
        fault_server.put(f"videos/{name}", video(*cell).data)
    url = fault_server.url("videos")
    found = mx8.convert_from("videofolder", url, tmp_path / "remote", workers=workers, **options)
    assert found == mx8.convert_from("videofolder", tmp_path / "videos", tmp_path / "local", **options)
    assert found.samples >= len(FILES)
