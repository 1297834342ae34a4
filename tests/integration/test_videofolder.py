"""Does `convert videofolder` convert folders, tars and lists of videos, and report every reject and error?"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

import mx8shards as mx8
from mx8shards.cli import main
from mx8shards.convert.file_kinds import VIDEOS
from mx8shards.convert.videofolder import VideoFolder
from mx8shards.errors import SchemaError, SettingError, SourceError
from mx8shards.format.packet_index import parse_packet_index
from mx8shards.media.video_facts import COLUMNS
from tests.videos import FPS, decoded, encoded, video

av = pytest.importorskip("av")

GOOD = {
    "jump/1.mp4": ("h264", "open"),
    "jump/more/2.mkv": ("vp9", "wrong rate"),
    "run/1.mp4": ("hevc", "edit list"),
    "run/2.ts": ("h264", "negative start"),
    "run/3.mp4": ("mpeg4", "rotated"),
}
BAD = {
    "jump/cut.mp4": (lambda: video("h264").data[:5_000], "expected a whole video"),
    "jump/notes.txt": (lambda: b"notes", "expected a video's suffix"),
    "run/empty.mp4": (lambda: b"", "got an empty file"),
    "run/ten.mp4": (lambda: encoded("h264", range(3), range(3), pixel_format="yuv420p10le"), "got yuv420p10le"),
}


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return write(tmp_path / "videos", {name: video(*cell).data for name, cell in GOOD.items()})


def numbers_in(sample) -> list[int]:
    """The painted numbers of a sample's frames."""
    return [number for _, number in decoded(sample["video"])]


def test_files_are_kept_with_their_index_and_facts(src, tmp_path):
    report = mx8.convert_from("videofolder", src, tmp_path / "data")
    assert (report.samples, report.rejects) == (len(GOOD), ())
    with mx8.Dataset(tmp_path / "data") as dataset:
        assert dataset.metadata["classes"] == ["jump", "run"]
        assert dataset.metadata["videos"] == {"video": {"packets": "packets", "format": "packets 1", "facts": ""}}
        for sample, (name, cell) in zip(dataset, GOOD.items(), strict=True):
            made = video(*cell)
            index = parse_packet_index(sample["packets"], len(sample["video"]))
            assert (sample["path"], sample["video"]) == (name, made.data)
            assert sample["label"] == ["jump", "run"].index(name.split("/")[0])
            assert (sample["frames"], sample["rotation"]) == (len(made.numbers), made.rotation)
            assert (sample["codec"], sample["width"], sample["height"]) == (cell[0], 96, 64)
            unit = sample["time_base_num"] / sample["time_base_den"]
            assert sample["start"] == index.pts[index.frames[0]]
            assert sample["duration"] * unit == pytest.approx(len(made.numbers) / FPS, abs=0.03)
            assert set(sample) == {"video", "packets", "path", "label", *COLUMNS}


def test_bad_files_are_rejects_with_their_reasons(src, tmp_path, capsys):
    write(src, {name: make() for name, (make, _) in BAD.items()})
    assert main(["convert", "videofolder", str(src), str(tmp_path / "data")]) == 4
    (report,) = (tmp_path / "data" / ".mx8shards").rglob("*.jsonl")
    assert str(report) in capsys.readouterr().err
    found = {each["item"]: each["reason"] for each in map(json.loads, report.read_text().splitlines())}
    assert found.keys() == BAD.keys()
    for name, (_, reason) in BAD.items():
        assert reason in found[name]


@pytest.mark.parametrize("options", [{}, {"clip_seconds": 0.5}, {"gop": 8, "max_side": 48}])
def test_the_snapshot_is_equal_for_any_number_of_workers(options, src, tmp_path):
    found = [
        mx8.convert_from("videofolder", src, tmp_path / f"data{workers}", workers=workers, **options)
        for workers in (1, 2)
    ]
    assert found[0] == found[1]


def test_a_tar_gives_the_dataset_of_its_folder(src, tmp_path):
    with tarfile.open(tmp_path / "videos.tar", "w") as tar:
        tar.add(src, "")
    for options in ({}, {"clip_seconds": 0.5}):
        from_tar = mx8.convert_from("videofolder", tmp_path / "videos.tar", tmp_path / f"tar{len(options)}", **options)
        assert from_tar == mx8.convert_from("videofolder", src, tmp_path / f"data{len(options)}", **options)


def test_remuxed_files_need_no_demuxer(src, tmp_path):
    mx8.convert_from("videofolder", src, tmp_path / "data", remux=True)
    with mx8.Dataset(tmp_path / "data") as dataset:
        for sample, cell in zip(dataset, GOOD.values(), strict=True):
            assert parse_packet_index(sample["packets"]).facts.slices
            assert sample["video"][4:8] == b"ftyp"
            assert numbers_in(sample) == list(video(*cell).numbers)


def test_reencoded_files_record_the_encoder_and_its_versions(src, tmp_path):
    mx8.convert_from("videofolder", src, tmp_path / "data", gop=8, max_side=48, fps=12.5)
    with mx8.Dataset(tmp_path / "data") as dataset:
        assert dataset.metadata["conversion"]["versions"].keys() >= {"av", "libavcodec", "encoder"}
        assert {(sample["codec"], max(sample["width"], sample["height"])) for sample in dataset} == {("h264", 48)}
        assert dataset[0]["frames"] == 20


def test_parts_of_videos_begin_at_keyframes_and_have_all_frames(src, tmp_path):
    report = mx8.convert_from("videofolder", src, tmp_path / "data", clip_seconds=0.5)
    assert report.samples > len(GOOD)
    with mx8.Dataset(tmp_path / "data") as dataset:
        samples = [sample for sample in dataset if sample["path"].startswith("jump/1.mp4")]
        assert [sample["path"] for sample in samples] == [f"jump/1.mp4#{number}" for number in range(len(samples))]
        assert [number for sample in samples for number in numbers_in(sample)] == list(range(40))
        ends = [sample["source_end"] for sample in samples]
        assert [sample["source_start"] for sample in samples] == [0.0, *ends[:-1]]
        assert ends[-1] == 1.6
        for sample in samples:
            unit = sample["time_base_num"] / sample["time_base_den"]
            assert sample["duration"] * unit == pytest.approx(sample["source_end"] - sample["source_start"])


def test_the_parts_of_a_video_are_in_one_split(src, tmp_path):
    mx8.convert_from("videofolder", src, tmp_path / "data", clip_seconds=0.5, split="train=0.5,val=0.5", seed=1)
    with mx8.Dataset(tmp_path / "data/train") as train, mx8.Dataset(tmp_path / "data/val") as val:
        files = [{sample["path"].split("#")[0] for sample in each} for each in (train, val)]
    assert all(files)
    assert not files[0] & files[1]


def test_a_list_names_labels_and_parts(src, tmp_path):
    lines = ["path,label,start,end", "jump/1.mp4,up,0.2,0.6", "jump/1.mp4,up,1,", "run/1.mp4,away,,"]
    (src / "list.csv").write_text("\n".join(lines))
    objects = [{"path": "jump/1.mp4", "label": "up", "start": 0.2, "end": 0.6}]
    objects += [{"path": "jump/1.mp4", "label": "up", "start": 1}, {"path": "run/1.mp4", "label": "away", "more": 1}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, objects)))
    csv = mx8.convert_from("videofolder", src / "list.csv", tmp_path / "data")
    jsonl = mx8.convert_from("videofolder", tmp_path / "list.jsonl", tmp_path / "again", root=src)
    assert csv.snapshot == jsonl.snapshot
    with mx8.Dataset(tmp_path / "data") as dataset:
        assert dataset.metadata["classes"] == ["away", "up"]
        assert [sample["path"] for sample in dataset] == ["jump/1.mp4#0.2-0.6", "jump/1.mp4#1-", "run/1.mp4"]
        assert [sample["label"] for sample in dataset] == [1, 1, 0]
        assert [numbers_in(sample) for sample in dataset] == [
            list(range(5, 15)),
            list(range(25, 40)),
            list(video("hevc", "edit list").numbers),
        ]
        assert [sample["source_start"] for sample in dataset] == [0.2, 1.0, 0.0]
        assert [sample["source_end"] for sample in dataset] == pytest.approx([0.6, 1.6, 1.4])


def test_labels_that_are_numbers_stay_numbers(src, tmp_path):
    (src / "list.csv").write_text("path,label\njump/1.mp4,7\nrun/1.mp4,-0\n".replace("-0", "3"))
    mx8.convert_from("videofolder", src / "list.csv", tmp_path / "data")
    with mx8.Dataset(tmp_path / "data") as dataset:
        assert [sample["label"] for sample in dataset] == [7, 3]
        assert "classes" not in dataset.metadata


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file,label\na.mp4,1\n", "expected a header with path"),
        ("path\n", "expected lines with a path, got none"),
        ("path,start,end\na.mp4,3,2\n", "expected an end after the start"),
        ("path,start\na.mp4,soon\n", "expected start in seconds"),
        ("path,label\na.mp4,1\nb.mp4,\n", "entry 2: expected a label, got none"),
        ("path\n../a.mp4\n", "expected a path below"),
        ("path\na.mp4\na.mp4\n", "a different name for each item"),
    ],
)
def test_a_wrong_list_is_an_error_that_names_the_line(text, reason, src, tmp_path):
    (src / "list.csv").write_text(text)
    with pytest.raises(SourceError, match=reason):
        mx8.convert_from("videofolder", src / "list.csv", tmp_path / "data")


def test_a_video_that_a_list_names_and_is_missing_is_a_reject(src, tmp_path):
    (src / "list.csv").write_text("path,start\njump/1.mp4,\nnone.mp4,\njump/1.mp4,9\n")
    report = mx8.convert_from("videofolder", src / "list.csv", tmp_path / "data")
    assert [(reject.item, reject.reason.split(":")[0]) for reject in report.rejects] == [
        ("none.mp4", "cannot be read"),
        ("jump/1.mp4#9-", "expected a part that begins before the video ends, at 1.6 s, got 9 s"),
    ]


def test_new_videos_are_appended_and_their_parts(src, tmp_path):
    for name, options in (("whole", {}), ("parts", {"clip_seconds": 0.5})):
        out = tmp_path / name
        first = mx8.convert_from("videofolder", src, out, **options)
        write(src, {f"run/{name}.mp4": video("h264").data})
        report = mx8.convert_from("videofolder", src, out, append=True, **options)
        assert report.known == first.samples
        assert report.samples == (1 if name == "whole" else 2)
        (src / f"run/{name}.mp4").unlink()
    with pytest.raises(SchemaError, match="videofolder"):
        mx8.convert_from("videofolder", src, tmp_path / "whole", append=True, remux=True)


def test_a_file_of_over_4_gib_is_a_reject_that_names_clip_seconds(src, tmp_path):
    with open(src / "run/large.mp4", "wb") as file:
        file.truncate(VIDEOS.most_bytes + 1)
    report = mx8.convert_from("videofolder", src, tmp_path / "data")
    (reject,) = report.rejects
    assert "expected at most 4278190080 bytes" in reject.reason
    assert "--clip-seconds" in reject.reason


def test_a_file_of_over_4_gib_is_split_at_keyframes(tmp_path):
    """An MP4 with an empty box of 5 GB at its end, which takes no space on disk."""
    data, empty = video("h264").data, 5_000_000_000
    (tmp_path / "videos").mkdir()
    with open(tmp_path / "videos/long.mp4", "wb") as file:
        file.write(data + b"\0\0\0\1free" + empty.to_bytes(8, "big"))
        file.truncate(len(data) + empty)
    report = mx8.convert_from("videofolder", tmp_path / "videos", tmp_path / "data", clip_seconds=0.5)
    assert (report.samples, report.rejects) == (2, ())
    with mx8.Dataset(tmp_path / "data") as dataset:
        assert [number for sample in dataset for number in numbers_in(sample)] == list(range(40))
        assert all(len(sample["video"]) < len(data) for sample in dataset)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("gop", 0, "an int from 1"),
        ("crf", 52, "an int from 0 to 51"),
        ("fps", 0, "a number above 0"),
        ("fps", float("nan"), "a number above 0"),
        ("codec", "vp9", "one of 'h264', 'av1'"),
        ("clip_seconds", -1, "a number of seconds above 0"),
        ("labels", "imagefolder", "one of 'auto', 'none', 'videofolder'"),
        ("audio", 1, "True or False"),
        ("max_side", "256", "an int from 1"),
        ("root", "elsewhere", "None, unless SRC is a list"),
    ],
)
def test_options_that_are_not_allowed_are_named(option, value, allowed, src):
    with pytest.raises(SettingError, match=f"^{option}: expected {allowed}"):
        VideoFolder(src, **{option: value})


def test_the_command_explains_its_options(capsys):
    assert main(["convert", "videofolder", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--clip-seconds CLIP_SECONDS Split each video at keyframes" in text
    assert "--no-audio Leave the audio out. Default: Keep the audio." in text
    assert "--gop N" in text
