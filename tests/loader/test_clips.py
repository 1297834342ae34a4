"""Does a Loader deliver the clips that the view says, exactly, in every layout, and on any number of ranks?"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import mx8shards as mx8
from tests import videos
from tests.clip_data import write_videos
from tests.waiting import wait_until

FORMS = [
    ("h264", "open"),
    ("h264", "vfr"),
    ("hevc", "open"),
    ("h264", "edit list"),
    ("h264", "negative start"),  # in MPEG-TS, whose packets are not parts of the payload
    ("vp9", "closed"),
    ("mjpeg", "closed"),
]
WHOLE = mx8.Clip(crop=mx8.CenterCrop((videos.HEIGHT, videos.WIDTH)))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mx8.Dataset]:
    with write_videos(tmp_path_factory.mktemp("clips") / "data", [videos.video(*form).data for form in FORMS]) as found:
        yield found


def loaded(view: mx8.Dataset, clip: Any = WHOLE, **settings: Any) -> Iterator[mx8.Batch]:
    given = {"batch_size": 4, "output": "numpy", "threads": 2, "memory": "256mb", "decode": {"video": clip}}
    with mx8.Loader(view, **(given | settings)) as loader:
        yield from loader


def painted_numbers(clip: Any) -> list[int]:
    """The numbers painted into the frames of a clip with the layout TCHW."""
    return [videos.number_in(frame.mean(axis=0)) for frame in clip]


def shown_numbers(label: int, frames: Any) -> list[int]:
    """The painted numbers that these frames of a video have."""
    return [videos.video(*FORMS[label]).numbers[frame] for frame in frames]


# pixels --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_every_frame_is_the_one_that_the_batch_says(dataset: mx8.Dataset, io: str) -> None:
    view = dataset.clips("video", frames=5, stride=3, every=7)
    clips = 0
    for batch in loaded(view, shuffle=True, io=io):
        for label, pixels, frames in zip(batch["label"], batch["video"], batch["video.frames"], strict=True):
            assert painted_numbers(pixels) == shown_numbers(label, frames)
            clips += 1
    assert clips == len(view) == sum(1 + (len(videos.video(*form).numbers) - 13) // 7 for form in FORMS)


def test_all_layouts_have_the_same_pixels(dataset: mx8.Dataset) -> None:
    view = dataset.clips("video", frames=3, every=15)
    crop = mx8.RandomResizedCrop(24, flip=0.5, seed=3)
    made = {
        layout: list(loaded(view, mx8.Clip(crop=crop, layout=layout), columns=["video"]))
        for layout in ("TCHW", "THWC", "CTHW")
    }
    for first, second, third in zip(*made.values(), strict=True):
        assert first["video"].shape[1:] == (3, 3, 24, 24)
        assert (np.moveaxis(second["video"], 4, 2) == first["video"]).all()
        assert (np.moveaxis(third["video"], 1, 2) == first["video"]).all()


def test_planes_have_their_colour_with_them(dataset: mx8.Dataset) -> None:
    view = dataset.clips("video", frames=3, every=15)
    size = videos.HEIGHT, videos.WIDTH
    planes = loaded(view, mx8.Clip(crop=mx8.CenterCrop(size), layout="planes"))
    for batch, other in zip(planes, loaded(view), strict=True):
        for label, luma, frames in zip(batch["label"], batch["video"], batch["video.frames"], strict=True):
            assert [videos.number_in(frame) for frame in luma] == shown_numbers(label, frames)
        assert batch["video.chroma"].shape[1:] == (3, 2, size[0] // 2, size[1] // 2)
        scale, shift = batch["video.colour"][:, :2].T
        grey = np.clip(batch["video"] * scale[:, None, None, None] + shift[:, None, None, None], 0, 255)
        assert np.abs(grey.astype(np.uint8).astype(int) - other["video"][:, :, 1]).max() <= 8  # chroma is near 128


def test_all_frames_of_a_clip_have_one_crop_and_two_clips_of_a_video_have_two(tmp_path: Path) -> None:
    number = 5  # the same frame again and again
    still = videos.encoded("mjpeg", [number] * 24, range(24))
    with write_videos(tmp_path / "data", [still]) as dataset:
        view = dataset.clips("video", frames=4)
        (batch,) = loaded(view, mx8.Clip(crop=mx8.RandomResizedCrop(32)), batch_size=6)
    clips = batch["video"].astype(int)
    within = np.abs(clips - clips[:, :1]).mean(axis=(1, 2, 3, 4))
    between = np.abs(clips[1:] - clips[:1]).mean(axis=(1, 2, 3, 4))
    assert within.max() < 4 < between.min()  # the encoder changes its quantiser a little


def test_float_clips_are_normalised(dataset: mx8.Dataset) -> None:
    view = dataset.clips("video", frames=2, every=30)
    crop = mx8.ResizeCrop(16, dtype="float32", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    for batch, plain in zip(loaded(view, mx8.Clip(crop=crop)), loaded(view, mx8.Clip(16)), strict=True):
        mean, std = (np.array(each)[:, None, None] for each in (crop.mean, crop.std))
        assert np.allclose(batch["video"], (plain["video"] / 255 - mean) / std, atol=1e-5)


def test_rotated_videos_are_upright(tmp_path: Path) -> None:
    with write_videos(tmp_path / "data", [videos.video("h264", "rotated").data]) as dataset:
        view = dataset.clips("video", frames=4)
        crop = mx8.CenterCrop((videos.WIDTH, videos.HEIGHT))
        for batch in loaded(view, mx8.Clip(crop=crop)):
            for pixels, frames in zip(batch["video"], batch["video.frames"], strict=True):
                stored = np.rot90(pixels, 1, (2, 3))  # rotated clockwise by 90°: back
                assert painted_numbers(stored) == frames.tolist()


# which clips ---------------------------------------------------------------------------------------------------------


def test_a_view_says_what_a_batch_has(dataset: mx8.Dataset) -> None:
    view = dataset.clips("video", frames=4, stride=2, every=9)
    position = 0
    for batch in loaded(view):
        for row in range(len(batch["label"])):
            sample = view[position]
            assert sample["video"] == dataset[int(batch.sample_ids[row])]["video"]
            for name in ("frames", "mask", "start", "end"):
                assert np.array_equal(sample[f"video.{name}"], batch[f"video.{name}"][row])
            assert batch.extras["clip_id"][row] == position
            position += 1
    assert position == len(view)


def test_times_are_those_of_the_frames(dataset: mx8.Dataset) -> None:
    view = dataset.clips("video", frames=2, stride=2, every=3)
    times = np.cumsum(np.random.default_rng(5).integers(1, 6, videos.FRAMES))  # of the video with a variable rate
    for batch in loaded(view):
        for label, frames, start, end in zip(
            *(batch[name] for name in ("label", "video.frames", "video.start", "video.end")), strict=True
        ):
            if FORMS[label][1] == "vfr":
                assert start == pytest.approx((times[frames[0]] - times[0]) / videos.FPS)
                if frames[-1] + 1 < len(times):
                    assert end == pytest.approx((times[frames[-1] + 1] - times[0]) / videos.FPS)
            else:
                assert start == pytest.approx(frames[0] / videos.FPS, abs=0.0011)
                assert end == pytest.approx((frames[-1] + 1) / videos.FPS, abs=0.0011)


def ids_of(batch: mx8.Batch) -> list[tuple[int, int]]:
    """The id and the first frame of each clip of a batch."""
    return list(zip(batch.extras["clip_id"].tolist(), batch["video.frames"][:, 0].tolist(), strict=True))


def epoch_of(view: mx8.Dataset, world_size: int, state: Any = None, epoch: int = 0) -> list[list[tuple[int, int]]]:
    """The clips of each step of all ranks, in order."""
    ranks = []
    for rank in range(world_size):
        settings = {"shuffle": True, "seed": 3, "rank": rank, "world_size": world_size, "batch_size": 8 // world_size}
        with mx8.Loader(
            view,
            output="numpy",
            threads=1,
            memory="128mb",
            decode={"video": mx8.Clip(8)},
            columns=["video"],
            **settings,
        ) as loader:
            if state is None:
                loader.set_epoch(epoch)
            else:
                loader.load_state_dict(state)
            ranks.append([ids_of(batch) for batch in loader])
    return [[clip for part in step for clip in part] for step in zip(*ranks, strict=True)]


def test_an_epoch_has_the_same_clips_in_the_same_steps_on_any_number_of_ranks(dataset: mx8.Dataset) -> None:
    view = dataset.clips("video", frames=3, random=4).select(range(24))
    steps = epoch_of(view, 1)
    assert sorted(clip for step in steps for clip, _ in step) == list(range(len(view)))
    for world_size in (2, 4, 8):
        found = epoch_of(view, world_size)
        assert [sorted(step) for step in found] == [sorted(step) for step in steps]
    other = epoch_of(view, 1, epoch=1)
    assert {clip for step in other for clip in step} != {clip for step in steps for clip in step}


@pytest.mark.parametrize(("world_size", "done"), [(1, 2), (2, 2), (4, 1), (8, 2)])
def test_an_epoch_goes_on_after_a_state_on_any_number_of_ranks(
    dataset: mx8.Dataset, world_size: int, done: int
) -> None:
    view = dataset.clips("video", frames=3, random=4).select(range(24))
    steps = epoch_of(view, 1)
    with mx8.Loader(
        view, batch_size=8, shuffle=True, seed=3, output="numpy", memory="128mb", decode={"video": mx8.Clip(8)}
    ) as loader:
        for _, _ in zip(range(done), loader, strict=False):
            state = loader.state_dict()
    rest = epoch_of(view, world_size, state)
    assert [sorted(step) for step in rest] == [sorted(step) for step in steps[done:]]


# several columns -----------------------------------------------------------------------------------------------------


def test_cameras_show_the_same_times(tmp_path: Path) -> None:
    left = videos.encoded("h264", range(40), range(40))
    right = videos.encoded("h264", range(20), range(0, 40, 2))  # half the rate
    short = videos.encoded("mpeg4", range(10), range(10))  # ends earlier
    with write_videos(tmp_path / "data", [{"left": left, "right": right, "short": short}]) as dataset:
        view = dataset.clips(["left", "right", "short"], frames=4, stride=3, every=8)
        decode = dict.fromkeys(("left", "right", "short"), WHOLE)
        with mx8.Loader(view, batch_size=8, output="numpy", memory="256mb", decode=decode) as loader:
            (batch,) = loader
    for name in ("left", "right", "short"):
        for pixels, frames in zip(batch[name], batch[f"{name}.frames"], strict=True):
            assert painted_numbers(pixels) == frames.tolist()
    assert (batch["right.frames"] == batch["left.frames"] // 2).all()
    assert (batch["short.mask"] == (batch["left.frames"] < 10)).all()
    assert (batch["short.frames"] == np.minimum(batch["left.frames"], 9)).all()


def test_clips_around_anchors_have_the_frames_shown_then(tmp_path: Path) -> None:
    data = videos.video("h264").data
    anchors = [np.array([0.0, 0.5, 1.58]), np.array([1.0])]
    with write_videos(
        tmp_path / "data", [data, videos.video("hevc").data], {"grasps": "ndarray:float64"}, grasps=anchors
    ) as dataset:
        view = dataset.clips("video", at=[-0.08, -0.04, 0, 0.1], anchors="grasps")
        (batch,) = loaded(view, columns=["video"])
    times = np.concatenate(anchors)[:, None] + [-0.08, -0.04, 0, 0.1]
    expected = np.floor(times * videos.FPS + 1e-6).astype(int)
    assert (batch["video.frames"] == np.clip(expected, 0, videos.FRAMES - 1)).all()
    assert (batch["video.mask"] == ((expected >= 0) & (expected < videos.FRAMES))).all()
    for pixels, frames in zip(batch["video"], batch["video.frames"], strict=True):
        assert painted_numbers(pixels) == frames.tolist()


@pytest.mark.parametrize(
    ("clock", "anchor", "message"),
    [
        ("first", 1.7e9, 'seconds from the first frame of the video, got .*clock="container"'),
        ("first", -1e300, "seconds from the first frame"),
        ("container", 1.7e12, "seconds on the clock of the container, got .*milliseconds"),
        ("first", float("nan"), "expected seconds: a number, or several"),
    ],
)
def test_an_anchor_that_no_video_can_have_is_an_error_with_its_sample(
    tmp_path: Path, clock: Any, anchor: float, message: str
) -> None:
    data = videos.video("h264").data
    with (
        write_videos(tmp_path / "data", [data, data], {"grasp": "float64"}, grasp=[0.5, anchor]) as dataset,
        pytest.raises(mx8.SchemaError, match=f"column 'grasp': sample 1: .*{message}"),
    ):
        dataset.clips("video", at=[0], anchors="grasp", clock=clock)


@pytest.mark.parametrize(
    ("anchors", "message"),
    [("grasp", "anchors: expected one of the columns .*'grasps'"), ([0.5], "anchors: expected the name of a column")],
)
def test_a_wrong_name_of_anchors_is_an_error(anchors: Any, message: str, tmp_path: Path) -> None:
    data = [videos.video("h264").data]
    with (
        write_videos(tmp_path / "data", data, {"grasps": "json"}, grasps=[[]]) as dataset,
        pytest.raises(mx8.SettingError, match=message),
    ):
        dataset.clips("video", at=[0], anchors=anchors)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 21, "stride": 2}, "video: no video has a clip of 41 frames: the longest has 40"),
        ({"frames": 5, "fps": 2}, "video: no video has a clip of 5 moments: the longest has 4"),
        ({"at": [0], "anchors": "grasps"}, "video: no video has a clip: the column 'grasps' has no anchors"),
    ],
)
def test_a_view_without_any_clip_is_logged(
    settings: dict[str, Any], message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = videos.video("h264").data
    with write_videos(tmp_path / "data", [data], {"grasps": "json"}, grasps=[[]]) as dataset:
        assert len(dataset.clips("video", **settings)) == 0
        assert [record.message.startswith(message) for record in caplog.records] == [True]
        assert len(dataset.select([]).clips("video", frames=50)) == 0
        assert len(caplog.records) == 1


def test_a_decoder_of_pictures_is_refused_for_clips(tmp_path: Path) -> None:
    with (
        write_videos(tmp_path / "data", [videos.video("h264").data]) as dataset,
        pytest.raises(mx8.SettingError, match=r"decode: column 'video': expected mx8.Clip\(size\)"),
    ):
        mx8.Loader(dataset.clips("video", frames=2), batch_size=2, decode={"video": mx8.CenterCrop(32)})


def test_a_column_of_bytes_has_no_anchors(tmp_path: Path) -> None:
    with (
        write_videos(tmp_path / "data", [videos.video("h264").data]) as dataset,
        pytest.raises(mx8.SchemaError, match="column 'video': sample 0: expected seconds: a number, or several"),
    ):
        dataset.clips("video", at=[0], anchors="video")


def test_clips_that_are_all_padding_are_counted_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = videos.video("h264").data
    anchors = [np.array([0.5, 100.0, -3.0])]
    with write_videos(tmp_path / "data", [data], {"grasps": "ndarray:float64"}, grasps=anchors) as dataset:
        view = dataset.clips("video", at=[-0.04, 0], anchors="grasps")
        with mx8.Loader(view, batch_size=1, output="numpy", memory="256mb", decode={"video": WHOLE}) as loader:
            assert [batch["video.mask"].tolist() for batch in loader] == [[[True] * 2], [[False] * 2], [[False] * 2]]
            assert loader.stats()["clips_all_padding"] == 2
    (record,) = caplog.records
    assert record.message.startswith("a clip of column 'video' of sample 0 has only padding: no frame is shown at its")


def test_cameras_that_begin_at_different_times_are_aligned_by_the_clock_of_their_containers(tmp_path: Path) -> None:
    early = videos.encoded("h264", range(40), range(40), suffix="mkv")
    late = videos.encoded("h264", range(40), range(10, 50), suffix="mkv")  # 0.4 s later
    with write_videos(tmp_path / "data", [{"left": early, "right": late}]) as dataset:
        assert dataset.clips(["left", "right"], frames=4, every=12)[1]["right.frames"].tolist() == [12, 13, 14, 15]
        view = dataset.clips(["left", "right"], frames=4, every=12, clock="container")
        (batch,) = loaded(view, decode={"left": WHOLE, "right": WHOLE}, batch_size=4)
        assert batch["left.frames"][1].tolist() == [12, 13, 14, 15]
        assert batch["right.frames"][1].tolist() == painted_numbers(batch["right"][1]) == [2, 3, 4, 5]
        assert batch["right.mask"].tolist() == [[False] * 4, [True] * 4, [True] * 4, [True] * 4]
        assert view[1]["right.frames"].tolist() == [2, 3, 4, 5]


# one sweep -----------------------------------------------------------------------------------------------------------


def test_clips_of_one_video_in_a_batch_are_decoded_in_one_sweep(dataset: mx8.Dataset) -> None:
    view = dataset.select([0]).clips("video", frames=8, stride=2, every=1)
    fed = {}
    for batch_size in (1, len(view)):
        with mx8.Loader(
            view, batch_size=batch_size, output="numpy", memory="256mb", decode={"video": mx8.Clip(16)}
        ) as loader:
            for _ in loader:
                pass
            stats = loader.stats()
            fed[batch_size] = stats["clip_packets_fed"]
            assert stats["clips_decoded"] == len(view)
            assert stats["clip_packets_covered"] >= stats["clip_packets_fed"]
    assert fed[len(view)] <= videos.FRAMES
    assert fed[1] > 5 * fed[len(view)]


def test_repeated_samples_of_a_step_are_all_filled(dataset: mx8.Dataset) -> None:
    view = dataset.clips("video", frames=4).select([3, 1, 3, 3])
    (batch,) = loaded(view)
    assert Counter(batch["video.frames"][:, 0].tolist())[int(batch["video.frames"][0, 0])] == 3
    for label, pixels, frames in zip(batch["label"], batch["video"], batch["video.frames"], strict=True):
        assert painted_numbers(pixels) == shown_numbers(label, frames)


# views, processes, closing -------------------------------------------------------------------------------------------


def test_clips_can_be_selected_and_concatenated(dataset: mx8.Dataset) -> None:
    view = dataset.clips("video", frames=4, every=10)
    chosen = view.where("label", 1)
    assert len(chosen) == 1 + (videos.FRAMES - 4) // 10
    assert chosen.column("path")[0] == "1.mp4"
    both = mx8.concat([chosen, view.select([0])])
    for batch in loaded(both):
        for label, pixels, frames in zip(batch["label"], batch["video"], batch["video.frames"], strict=True):
            assert painted_numbers(pixels) == shown_numbers(label, frames)


def test_clips_come_from_worker_processes(dataset: mx8.Dataset) -> None:
    torch = pytest.importorskip("torch")
    view = dataset.clips("video", frames=4, every=20)
    with mx8.Loader(view, batch_size=4, threads=1, memory="128mb", decode={"video": WHOLE}) as loader:
        workers = torch.utils.data.DataLoader(loader.as_iterable_dataset(), batch_size=None, num_workers=1)
        clips = 0
        for batch in workers:
            for label, pixels, frames in zip(batch["label"], batch["video"], batch["video.frames"], strict=True):
                assert painted_numbers(pixels.numpy()) == shown_numbers(int(label), frames.tolist())
                clips += 1
    assert clips == len(view)


def test_a_closed_loader_has_closed_its_decoders(dataset: mx8.Dataset) -> None:
    view = dataset.clips("video", frames=4, every=20)
    pool = mx8.Pool(memory="256mb", threads=2)
    with mx8.Loader(view, batch_size=4, output="numpy", pool=pool, decode={"video": WHOLE}) as loader:
        for _ in loader:
            pass
        decoders = pool.memory.shared["video decoders"]
        assert decoders._used_bytes == sum(idle.size_bytes for idle in decoders._idle) > 0
    assert decoders._used_bytes == 0
    assert not decoders._idle
    pool.close()


def test_an_abandoned_epoch_leaves_no_decoder_in_use(dataset: mx8.Dataset) -> None:
    view = dataset.clips("video", frames=4, every=2)
    pool = mx8.Pool(memory="256mb", threads=2)
    with mx8.Loader(view, batch_size=2, output="numpy", pool=pool, decode={"video": WHOLE}) as loader:
        for _ in range(3):
            next(iter(loader))
    assert pool.memory.shared["video decoders"]._used_bytes == 0
    pool.close()


def test_a_loader_ends_although_its_threads_wait_for_decoders(
    dataset: mx8.Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    pool = mx8.Pool(memory="256mb", threads=2)
    view = dataset.clips("video", frames=4, every=20)
    with mx8.Loader(view, batch_size=4, output="numpy", pool=pool, decode={"video": WHOLE}) as loader:
        iterator = iter(loader)
        next(iterator)
        decoders = pool.memory.shared["video decoders"]
        wait_until(lambda: not decoders.wait() and decoders._used_bytes == sum(each[1] for each in decoders._idle))
        with decoders.memory(decoders.most_bytes):
            again = iter(loader)
            wait_until(lambda: decoders.wait() != "")
            again.close()
            assert decoders.wait() == ""
    assert "an ended iteration" not in caplog.text
    pool.close()


# sound ---------------------------------------------------------------------------------------------------------------


def sound_of(data: bytes, rate: int) -> Any:
    """All samples of a video's sound by a full decode, from time 0 on."""
    found = np.zeros(4 * rate, np.float32)
    with av.open(io.BytesIO(data)) as container:
        for frame in container.decode(container.streams.audio[0]):
            samples = frame.to_ndarray()[0]
            at = round(frame.pts * frame.time_base * rate)
            low = max(at, 0)
            found[low : at + len(samples)] = samples[low - at :]
    return found


def test_sound_has_the_bounds_of_its_clip(tmp_path: Path) -> None:
    data = videos.encoded("h264", range(60), range(60), audio=True)
    sound = sound_of(data, 16_000)
    with write_videos(tmp_path / "data", [data]) as dataset:
        view = dataset.clips("video", frames=7, stride=2, every=9)
        decode = {"video": mx8.Clip(16), "video.audio": mx8.Audio(16_000)}
        for batch in loaded(view, batch_size=3, decode=decode):
            for row, samples in enumerate(batch["video.audio"]):
                first = round(float(batch["video.start"][row]) * 16_000)
                assert samples.shape == (1, round(13 / videos.FPS * 16_000))
                assert np.abs(samples[0] - sound[first : first + samples.shape[1]]).max() < 1e-4


def end_to_end(data: bytes) -> tuple[float, Any]:
    """How many seconds after the first picture the sound begins, and all its samples, one frame behind the other."""
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(container.streams.audio[0]))
    with av.open(io.BytesIO(data)) as container:
        picture = next(container.decode(video=0))
    return frames[0].time - picture.time, np.concatenate([frame.to_ndarray()[0] for frame in frames])


def test_sound_is_exact_in_containers_that_round_times_to_milliseconds(tmp_path: Path) -> None:
    rate = 44_100  # a frame of AAC has 1,024 samples, which are 23.2 ms
    data = videos.encoded("h264", range(60), range(60), suffix="mkv", audio=True, sound_rate=rate)
    later, sound = end_to_end(data)
    with write_videos(tmp_path / "data", [data]) as dataset:
        view = dataset.clips("video", frames=10, every=7)
        decode = {"video": mx8.Clip(16), "video.audio": mx8.Audio(rate)}
        for batch in loaded(view, decode=decode):
            for begin, samples in zip(batch["video.start"], batch["video.audio"], strict=True):
                first = round((begin - later) * rate)
                silent = max(0, -first)
                expected = sound[first + silent : first + samples.shape[1]]
                assert np.abs(samples[0, silent : silent + len(expected)] - expected).max() < 1e-3


def test_a_damaged_first_packet_loses_no_sound_of_later_parts(tmp_path: Path) -> None:
    rate = 44_100
    data = videos.encoded("h264", range(60), range(60), suffix="mkv", audio=True, sound_rate=rate)
    later, sound = end_to_end(data)
    with av.open(io.BytesIO(data)) as container:
        first = bytes(next(container.demux(audio=0)))
    damaged = data.replace(first, b"\xff" * len(first))
    assert damaged != data
    with write_videos(tmp_path / "data", [damaged]) as dataset:
        view = dataset.clips("video", frames=10).select([3])
        (batch,) = loaded(view, decode={"video": mx8.Clip(16), "video.audio": mx8.Audio(rate)})
    (samples,) = batch["video.audio"][0]
    begin = round((float(batch["video.start"][0]) - later) * rate)
    within = rate // 1_000  # times are rounded to milliseconds
    parts = [sound[at : at + len(samples)] for at in range(begin - within, begin + within + 1)]
    assert min(np.abs(samples - part).max() for part in parts) < 0.02


def test_sound_in_another_rate_is_exact_to_a_sample(tmp_path: Path) -> None:
    data = videos.encoded("h264", range(60), range(60), audio=True)
    sound = sound_of(data, 16_000)[::2]  # a tone far below the new limit
    with write_videos(tmp_path / "data", [data]) as dataset:
        view = dataset.clips("video", frames=10, every=17)
        (batch,) = loaded(view, decode={"video.audio": mx8.Audio(8_000, channels=2)})
    assert "video" not in batch
    for row, samples in enumerate(batch["video.audio"]):
        first = round(17 * row / videos.FPS * 8_000)
        expected = sound[first : first + samples.shape[1]]
        matches = [
            np.corrcoef(samples[0, 9:-9], expected[9 + lag : len(expected) - 9 + lag])[0, 1] for lag in range(-5, 6)
        ]
        assert abs(int(np.argmax(matches)) - 5) <= 1
        assert (samples[0] == samples[1]).all()


def test_a_video_without_sound_is_a_bad_sample(dataset: mx8.Dataset) -> None:
    view = dataset.clips("video", frames=10)
    with pytest.raises(mx8.LoaderError, match=r"column 'video': expected a stream of audio, got none"):
        list(loaded(view, decode={"video.audio": mx8.Audio()}))
