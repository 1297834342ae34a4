"""What happens to clips that cannot be decoded: which are lost, which error names the reason, and what is counted?"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.format.packet_index import (
    FORMAT,
    VIDEOS,
    PacketIndex,
    encode_packet_index,
    parse_packet_index,
)
from mx8shards.joining import mix
from mx8shards.media.clip_counts import CLASSES
from tests import videos
from tests.clip_data import packets_of, write_videos

GOOD = videos.video("h264").data
TS = videos.video("h264", "negative start").data  # its packets are no parts of it
CLIP = {"video": mx8.Clip(16)}


def large_video(kind: str) -> bytes:
    """Frames of 1024 × 768 in a container."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height = 1024, 768
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(1024, 768, "yuv420p")))
        container.mux(stream.encode())
    return out.getvalue()


def damaged(data: bytes, *packets: int) -> bytes:
    """The video with zeros instead of these packets."""
    index = parse_packet_index(packets_of(data))
    for packet in packets:
        begin, size = int(index.position[packet]), int(index.size[packet])
        data = data[:begin] + bytes(size) + data[begin + size :]
    return data


def written(path: Path, rows: list[tuple[bytes, bytes]], frames: list[int] | None = None) -> mx8.Dataset:
    """A dataset of videos and packet indices, with a column of facts if `frames` are given."""
    facts = {} if frames is None else {"facts": ""}
    metadata = {VIDEOS: {"video": {"packets": "packets", "format": FORMAT, **facts}}}
    columns = {"video": "bytes", "packets": "bytes", "frames": "int"}
    with mx8.Writer(path, columns=columns, metadata=metadata) as writer:
        for number, (video, packets) in enumerate(rows):
            writer.write({"video": video, "packets": packets, "frames": frames[number] if frames else 0})
    return mx8.Dataset(path)


def loaded(view: mx8.Dataset, **settings: Any) -> tuple[list[tuple[int, int]], dict[str, Any]]:
    """The sample_id and the first frame of every clip that is delivered, and the stats."""
    given = {"batch_size": 3, "output": "numpy", "memory": "128mb", "decode": CLIP, "columns": ["video"]}
    with mx8.Loader(view, **(given | settings)) as loader:
        batches = list(loader)
        found = [
            pair
            for batch in batches
            for pair in zip(batch.sample_ids.tolist(), batch["video.frames"][:, 0].tolist(), strict=True)
        ]
        return found, loader.stats()


def lost_starts(batch_size: int, path: Path) -> list[int]:
    with mx8.Dataset(path) as dataset:
        view = dataset.clips("video", frames=4)
        found, stats = loaded(view, batch_size=batch_size, on_error="skip")
        assert stats["lost"] == stats["clips_failed_corrupt"] == len(view) - len(found)
        assert sum(stats[f"clips_failed_{name}"] for name in CLASSES) == stats["lost"]
        return sorted({4 * number for number in range(len(view))} - {first for _, first in found})


def test_only_clips_that_need_the_damaged_packet_are_lost_in_any_batch(tmp_path: Path) -> None:
    index = parse_packet_index(packets_of(GOOD))
    keyframe = int(np.flatnonzero(index.keyframe)[1])
    written(tmp_path / "data", [(damaged(GOOD, keyframe), packets_of(GOOD))]).close()
    lost = lost_starts(1, tmp_path / "data")
    assert lost == [12, 16, 20] == lost_starts(100, tmp_path / "data")


def test_an_error_names_the_sample_and_the_frame(tmp_path: Path) -> None:
    index = parse_packet_index(packets_of(GOOD))
    keyframe = int(np.flatnonzero(index.keyframe)[1])
    with written(tmp_path / "data", [(GOOD, packets_of(GOOD)), (damaged(GOOD, keyframe), packets_of(GOOD))]) as dataset:
        expected = r"sample 1 of this shard, column 'video': (expected frame 1\d of 40|FFmpeg cannot decode it)"
        with pytest.raises(mx8.LoaderError, match=expected):
            loaded(dataset.clips("video", frames=4))


def test_the_error_of_a_clip_is_that_of_its_own_column(tmp_path: Path) -> None:
    index = parse_packet_index(packets_of(GOOD))
    first, second, third = np.flatnonzero(index.keyframe)[:3].tolist()
    left, right = damaged(GOOD, first, third), damaged(GOOD, second)
    columns = dict.fromkeys(("left", "right", "left_packets", "right_packets"), "bytes")
    metadata = {VIDEOS: {name: {"packets": f"{name}_packets", "format": FORMAT} for name in ("left", "right")}}
    with mx8.Writer(tmp_path / "data", columns=columns, metadata=metadata) as writer:
        packets = packets_of(GOOD)
        writer.write({"left": left, "right": right, "left_packets": packets, "right_packets": packets})
    decode = {name: mx8.Clip(16) for name in ("left", "right")}
    with mx8.Dataset(tmp_path / "data") as dataset:
        view = dataset.clips(["left", "right"], frames=4).select([0, 4, 7])
        for batch_size in (1, 3):  # one batch after another; then all in one
            with mx8.Loader(
                view, batch_size=batch_size, output="numpy", memory="256mb", on_error="skip", decode=decode
            ) as loader:
                assert sum(len(batch.sample_ids) for batch in loader) == 0
                reasons = [lost["reason"] for lost in loader.stats()["lost_last"]]
            assert [reason.split("column ")[1].split(":")[0] for reason in reasons] == ["'left'", "'right'", "'left'"]


def test_lost_clips_are_substituted(tmp_path: Path) -> None:
    index = parse_packet_index(packets_of(GOOD))
    rows = [(GOOD, packets_of(GOOD)), (damaged(GOOD, int(index.frames[0])), packets_of(GOOD))]
    with written(tmp_path / "data", rows) as dataset:
        view = dataset.clips("video", frames=4)
        found, stats = loaded(view, on_error="substitute")
    assert len(found) == len(view)
    assert stats["lost"] == 3
    assert not {(1, 0), (1, 4), (1, 8)} & set(found)


def changed(change: Callable[[PacketIndex], PacketIndex]) -> bytes:
    return encode_packet_index(change(parse_packet_index(packets_of(GOOD))))


def with_facts(**facts: Any) -> bytes:
    return changed(lambda index: dataclasses.replace(index, facts=dataclasses.replace(index.facts, **facts)))


@pytest.mark.parametrize(
    ("name", "video", "packets", "message"),
    [
        ("missing", GOOD, b"", "expected a packet index, got an empty one"),
        ("corrupt", GOOD, packets_of(GOOD)[:-1], "packet index"),
        ("corrupt", GOOD[:-2000], packets_of(GOOD), "packets inside the payload"),
        ("corrupt", GOOD, packets_of(GOOD)[:17] + b"\xff" + packets_of(GOOD)[18:], "at most 16 frames"),
        ("unsupported", GOOD, with_facts(pixel_format="yuv420p10le"), "8 bits per sample.*yuv420p10le"),
        ("unsupported", GOOD, with_facts(codec="theora_2"), "one of the codecs h264.*, got theora_2"),
        ("unsupported", GOOD, with_facts(codec="ansi"), "one of the codecs h264.*, got ansi"),
        ("unsupported", GOOD, with_facts(codec="pcm_s16le"), "one of the codecs h264.*, got pcm_s16le"),
        ("unsupported", GOOD, with_facts(matrix=8), "a colour matrix of bt709, .*, got ycgco"),
        ("unsupported", GOOD, with_facts(width=65_000, height=65_000), "a video that is decoded in"),
        ("unsupported", GOOD, with_facts(width=48), "frames of 48 × 64"),
        ("missing", GOOD, with_facts(slices=False, stream=7), "expected a stream 7 of video, got 1 streams"),
        ("corrupt", bytes(9_000), with_facts(slices=False), "expected a whole video"),
        (
            "unsupported",
            videos.with_stream_type(TS, 0xD4),
            packets_of(TS),
            "the codec h264 of its index, got an unknown",
        ),
        ("unsupported", GOOD, with_facts(slices=False, codec="mpeg4"), "the codec mpeg4 of its index, got h264"),
        ("unsupported", large_video("mp4"), with_facts(slices=False), "frames of 96 × 64, got 1024 × 768"),
        ("unsupported", large_video("mpegts"), with_facts(slices=False), "frames of 96 × 64, got 1024 × 768"),
    ],
)
def test_failures_have_classes(tmp_path: Path, name: str, video: bytes, packets: bytes, message: str) -> None:
    rows = [(GOOD, packets_of(GOOD)), (video, packets)]
    with written(tmp_path / "data", rows, frames=[40, 40]) as dataset:
        view = dataset.clips("video", frames=20)
        found, stats = loaded(view, on_error="skip")
        assert found == [(0, 0), (0, 20)]
        assert {each: stats[f"clips_failed_{each}"] for each in CLASSES if stats[f"clips_failed_{each}"]} == {name: 2}
        with pytest.raises(mx8.LoaderError, match=message):
            loaded(view.select([2]))


def test_a_video_with_fewer_frames_than_its_facts_say_is_short(tmp_path: Path) -> None:
    with written(tmp_path / "data", [(GOOD, packets_of(GOOD))], frames=[50]) as dataset:
        found, stats = loaded(dataset.clips("video", frames=10), on_error="skip")
    assert found == [(0, 0), (0, 10), (0, 20), (0, 30)]
    assert stats["clips_failed_short"] == 1


def test_whole_samples_cannot_be_decoded_as_clips(tmp_path: Path) -> None:
    with write_videos(tmp_path / "data", [GOOD]) as dataset, pytest.raises(mx8.SettingError, match="a view of clips"):
        loaded(dataset)


def test_views_that_have_no_clips_are_refused(tmp_path: Path) -> None:
    with write_videos(tmp_path / "data", [GOOD, GOOD]) as dataset:
        with pytest.raises(mx8.SettingError, match="clips: expected one of the columns"):
            dataset.clips("film", frames=2)
        with pytest.raises(mx8.SchemaError, match="column 'path': expected videos"):
            dataset.clips("path", frames=2)
        view = dataset.clips("video", frames=2)
        with pytest.raises(mx8.SettingError, match="got a view of clips"):
            view.clips("video", frames=2)
        mixed = mix([dataset, dataset], weights=[1, 1], length=3, on_exhausted="cycle")
        with pytest.raises(mx8.SettingError, match="got a mix"):
            mixed.clips("video", frames=2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Clip: size: expected pixels"),
        ({"size": "8"}, "Clip: size: expected pixels from 1 to"),
        ({"size": 0}, "size: expected pixels from 1"),
        ({"size": 8, "layout": "CHW"}, "Clip: layout: expected one of 'TCHW'"),
        ({"crop": 8}, "Clip: crop: expected a crop"),
        ({"size": 8, "crop": mx8.CenterCrop(9)}, "Clip: size: expected 9"),
        ({"crop": mx8.CenterCrop(9, exact=True)}, "Clip: crop: expected a crop without exact="),
        ({"crop": mx8.CenterCrop(8, dtype="float32"), "layout": "planes"}, "Clip: layout: expected another"),
        ({"size": 9, "layout": "planes"}, "Clip: size: expected even numbers"),
    ],
)
def test_bad_settings_of_clip_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(mx8.SettingError, match=message):
        mx8.Clip(**given)


@pytest.mark.parametrize("given", [{"rate": 10}, {"rate": 8_000.5}, {"channels": 3}])
def test_bad_settings_of_audio_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(mx8.SettingError, match=f"Audio: {next(iter(given))}: expected an int from"):
        mx8.Audio(**given)


def test_sound_of_a_column_that_is_not_loaded_is_refused(tmp_path: Path) -> None:
    with (
        write_videos(tmp_path / "data", [GOOD]) as dataset,
        pytest.raises(mx8.SettingError, match="decode: expected a"),
    ):
        loaded(dataset.clips("video", frames=2), decode={"film.audio": mx8.Audio()})
