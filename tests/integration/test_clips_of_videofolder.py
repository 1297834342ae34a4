"""Does a folder of videos become clips: converted, counted from its facts, shuffled, decoded and resumed?"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

import mx8shards as mx8
from tests import videos
from tests.anonymous_memory import anonymous_bytes

FORMS = [("h264", "open"), ("hevc", "closed"), ("h264", "vfr"), ("mpeg4", "closed")]
CLIP = mx8.Clip(crop=mx8.CenterCrop((videos.HEIGHT, videos.WIDTH)))


def converted(tmp_path: Path) -> mx8.Dataset:
    for number, form in enumerate(FORMS):
        folder = tmp_path / "videos" / form[0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.mp4").write_bytes(videos.video(*form).data)
    mx8.convert_from("videofolder", tmp_path / "videos", tmp_path / "data", workers=1)
    return mx8.Dataset(tmp_path / "data")


def test_a_folder_of_videos_becomes_clips(tmp_path: Path) -> None:
    with converted(tmp_path) as dataset:
        view = dataset.clips("video", frames=4, stride=2, every=6)
        assert len(view) == len(FORMS) * (1 + (videos.FRAMES - 7) // 6)
        seen = set()
        with mx8.Loader(
            view, batch_size=4, shuffle=True, output="numpy", memory="256mb", decode={"video": CLIP}
        ) as loader:
            for batch in loader:
                assert "packets" not in batch
                for row, (pixels, frames) in enumerate(zip(batch["video"], batch["video.frames"], strict=True)):
                    path = batch["path"][row]
                    seen.add((path, int(frames[0])))
                    assert [videos.number_in(frame.mean(axis=0)) for frame in pixels] == frames.tolist()
        assert len(seen) == len(view)


def test_a_rate_is_counted_from_the_facts(tmp_path: Path) -> None:
    with converted(tmp_path) as dataset:
        by_facts = dataset.clips("video", frames=4, fps=10)
        assert by_facts[0]["video.frames"].tolist() == [0, 2, 5, 7]
        assert len(by_facts) > 10


def thousand_videos(path: Path) -> mx8.Dataset:
    """Distinct videos of three codecs and many lengths, so that decoders, sizes and indices change all the time."""
    with mx8.Writer(path, columns={"video": "bytes"}, size_limit="1mb") as writer:
        for number in range(1_000):
            codec, frames = ("h264", "hevc", "mpeg4")[number % 3], range(number, number + 20 + number % 30)
            options = {"preset": "ultrafast"} if codec != "mpeg4" else {}
            writer.write({"video": videos.encoded(codec, frames, range(len(frames)), options=options)})
    return mx8.Dataset(path)


@pytest.mark.hunt
def test_memory_stays_flat_and_in_its_budget_over_a_hundred_thousand_clips_of_a_thousand_videos(tmp_path: Path) -> None:
    """It takes minutes: -o faulthandler_timeout=3600 keeps pytest from ending it on a slow machine."""
    memory = 128 << 20
    decode = {"video": mx8.Clip(crop=mx8.RandomResizedCrop(32))}
    with thousand_videos(tmp_path / "data") as dataset:
        view = dataset.clips("video", frames=4, random=10)
        with mx8.Loader(view, batch_size=8, shuffle=True, output="numpy", memory=memory, decode=decode) as loader:
            loader.warm_up()
            before, found = anonymous_bytes(), []
            for _ in range(10):
                highest = 0
                for number, batch in enumerate(loader):
                    if number % 25 == 0:
                        highest = max(highest, anonymous_bytes())
                    del batch
                found.append(highest)
            assert loader.stats()["clips_decoded"] >= 100_000
    print(f"over the memory before, per epoch: {[round((each - before) / 1e6, 1) for each in found]} MB")
    assert max(found[1:]) - found[1] <= 5 << 20
    assert max(found) - before <= memory


def without_indices(path: Path) -> None:
    with mx8.Writer(path, columns={"video": "bytes"}) as writer:
        for form in FORMS:
            writer.write({"video": videos.video(*form).data})
        writer.write({"video": b"no video"})


def test_videos_without_packet_indices_get_a_file_of_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_indices(tmp_path / "data")
    with mx8.Dataset(tmp_path / "data") as dataset:
        view = dataset.clips("video", frames=4, stride=2, every=6)
    (made,) = (tmp_path / "data").rglob("*.packets")
    monkeypatch.setattr("mx8shards.media.video_index.index_video", None)  # a second call would fail
    with mx8.Dataset(tmp_path / "data") as dataset:
        view = dataset.clips("video", frames=4, stride=2, every=6)
        assert len(view) == len(FORMS) * (1 + (videos.FRAMES - 7) // 6)
        with mx8.Loader(view, batch_size=4, output="numpy", memory="256mb", decode={"video": CLIP}) as loader:
            for batch in loader:
                for pixels, frames in zip(batch["video"], batch["video.frames"], strict=True):
                    assert [videos.number_in(frame.mean(axis=0)) for frame in pixels] == frames.tolist()
        assert view[0]["video.frames"].tolist() == [0, 2, 4, 6]
    assert not list((tmp_path / "data").rglob("*.tmp"))
    whole = made.read_bytes()
    for damaged in (whole[:-3], whole.replace(b'"videos": 1', b'"videos":[1]')):
        made.write_bytes(damaged)
        with (
            mx8.Dataset(tmp_path / "data") as dataset,
            pytest.raises(mx8.FormatError, match="a file of packet indices"),
        ):
            dataset.clips("video", frames=4)


def test_clips_of_datasets_without_packet_indices_are_joined_and_mixed(tmp_path: Path) -> None:
    with contextlib.ExitStack() as opened:
        views = []
        for name in ("some", "more"):
            without_indices(tmp_path / name)
            dataset = opened.enter_context(mx8.Dataset(tmp_path / name))
            views.append(dataset.clips("video", frames=4, stride=2, every=6))
        other = dataset.clips("video", frames=4, stride=3)
        for joined in (mx8.concat([views[0], *views]), mx8.mix(views, weights=[1, 1])):
            with mx8.Loader(joined, batch_size=8, output="numpy", memory="256mb", decode={"video": CLIP}) as loader:
                for batch in loader:
                    for pixels, frames in zip(batch["video"], batch["video.frames"], strict=True):
                        assert [videos.number_in(frame.mean(axis=0)) for frame in pixels] == frames.tolist()
            assert joined[len(joined) - 1]["video.frames"].tolist() == views[1][-1]["video.frames"].tolist()
        differences = ((other, "every=6 and 10, stride=2 and 3"), (dataset, "clips and whole samples"))
        for mixed, found in differences:
            with pytest.raises(mx8.SettingError, match=f"clips with equal settings in all datasets.*, got {found}"):
                mx8.concat([views[0], mixed])


def test_videos_without_clips_are_named_with_the_reason_and_again_with_another_version_of_pyav(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good = videos.video("h264").data
    bad = [b"", good[:300], b"#EXTM3U\n/etc/passwd\n"]
    with mx8.Writer(tmp_path / "data", columns={"video": "bytes", "grasp": "float64"}) as writer:
        for video in [good, *bad]:
            writer.write({"video": video, "grasp": 0.5})
    for _ in range(2):
        with mx8.Dataset(tmp_path / "data") as dataset:
            assert len(dataset.clips("video", frames=10)) == 4
            (record,) = caplog.records
            caplog.clear()
            assert record.message == "video: 3 of 4 videos have no clips: sample 1: expected a video, got an empty file"
    with mx8.Dataset(tmp_path / "data") as dataset:
        view = dataset.clips("video", at=[0], anchors="grasp")
        with pytest.raises(mx8.DecodeError, match=r"sample 2 .*got an empty one \(.*invalid data"):
            view[2]
        with mx8.Loader(
            view, batch_size=4, output="numpy", memory="256mb", on_error="skip", decode={"video": CLIP}
        ) as loader:
            assert [batch.sample_ids.tolist() for batch in loader] == [[0]]
            lost = {entry["sample_id"]: entry["reason"] for entry in loader.stats()["lost_last"]}
        assert "got an empty one (expected a video, got an empty file)" in lost[1]
    monkeypatch.setattr("av.__version__", "99.0")
    with mx8.Dataset(tmp_path / "data") as dataset:
        dataset.clips("video", frames=10)
    assert len(list((tmp_path / "data").rglob("*.packets"))) == 2


PICTURE = b"\xff\xd8\xff\xdb" + bytes(60)


@pytest.mark.parametrize("last", [videos.video("mjpeg").data, b"neither"])
def test_a_column_that_begins_with_pictures_may_have_videos_later(tmp_path: Path, last: bytes) -> None:
    seen = [PICTURE] * 300 + [videos.video("mjpeg").data] + [PICTURE] * 300 + [last]
    with mx8.Writer(tmp_path / "data", columns={"image": "bytes"}) as writer:
        for payload in seen:
            writer.write({"image": payload})
    with mx8.Dataset(tmp_path / "data") as dataset:
        assert len(dataset.clips("image", frames=videos.FRAMES)) == seen.count(seen[300])


def test_a_column_that_does_not_look_like_pictures_is_decided_at_its_end(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns={"image": "bytes"}) as writer:
        for payload in [PICTURE] * 599 + [b"neither"]:
            writer.write({"image": payload})
    message = "none in the first 600 samples; sample 0 is JPEG"
    with mx8.Dataset(tmp_path / "data") as dataset, pytest.raises(mx8.SchemaError, match=message):
        dataset.clips("image", frames=4)


@pytest.mark.parametrize("count", [3, 300])  # 300: the first pictures, and some of the others, are enough
def test_a_column_without_any_video_is_an_error(tmp_path: Path, count: int) -> None:
    with mx8.Writer(tmp_path / "data", columns={"image": "bytes"}) as writer:
        for _ in range(count):
            writer.write({"image": PICTURE})
    others = ", and 16 others from the first to the last are pictures" if count > 256 else ""
    message = rf"column 'image': .* none in the first {min(count, 256)} samples{others}; sample 0 is JPEG.*: .*"
    with mx8.Dataset(tmp_path / "data") as dataset, pytest.raises(mx8.SchemaError, match=message) as caught:
        dataset.clips("image", frames=4)
    assert "CenterCrop" in str(caught.value)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.suffix in (".packets", ".tmp")]
