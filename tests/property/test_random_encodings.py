"""Are frames exact in videos of random encoder settings: GOPs, references, B-frames, slices, fields, containers?"""

from __future__ import annotations

import numpy as np
import pytest

from mx8shards.media.video_decoders import Decoders
from tests import videos
from tests.unit.test_video_decoding import ENOUGH, wrong_frames

FRAMES = 60


def h264(random: np.random.Generator) -> str:
    """Random parameters of x264."""
    longest = int(random.integers(3, 30))
    return ":".join(
        [
            f"keyint={longest}:min-keyint={random.integers(1, longest + 1)}:scenecut={random.choice([0, 40])}",
            f"open-gop={random.integers(2)}:bframes={random.integers(8)}:b-adapt={random.integers(3)}",
            f"b-pyramid={random.choice(['none', 'normal', 'strict'])}:ref={random.integers(1, 8)}",
            f"weightp={random.integers(3)}:slices={random.integers(1, 4)}",
            f"intra-refresh={int(random.random() < 0.15)}:interlaced={int(random.random() < 0.15)}",
        ]
    )


def hevc(random: np.random.Generator) -> str:
    """Random parameters of x265."""
    longest = int(random.integers(3, 30))
    return ":".join(
        [
            f"keyint={longest}:min-keyint={random.integers(1, longest + 1)}:open-gop={random.integers(2)}",
            f"bframes={random.integers(5)}:b-adapt={random.integers(3)}:b-pyramid={random.integers(2)}",
            f"ref={random.integers(1, 5)}:temporal-layers={random.integers(2)}",
            "log-level=none:pools=none:frame-threads=1",
        ]
    )


@pytest.mark.hunt
@pytest.mark.parametrize("seed", range(60))
def test_no_frame_is_wrong_whatever_the_encoder_does(seed: int) -> None:
    random = np.random.default_rng(seed)
    codec, params = ("h264", h264(random)) if random.random() < 0.6 else ("hevc", hevc(random))
    name = "x264-params" if codec == "h264" else "x265-params"
    options = {"preset": "ultrafast" if codec == "hevc" else "veryfast", "crf": "22", name: params}
    times = np.cumsum(random.integers(1, 4, FRAMES)).tolist()
    suffix = str(random.choice(["mp4", "mkv", "mpegts"]))
    data = videos.encoded(codec, range(FRAMES), times, options=options, suffix=suffix)
    decoders = Decoders(ENOUGH)
    decoders.join()
    assert wrong_frames(data, FRAMES, seed, decoders) == 0, params
