"""Do copies, parts and re-encoded videos have the right frames, at the right times?"""

from __future__ import annotations

import io
import random
from fractions import Fraction

import numpy as np
import pytest

from mx8shards.errors import DecodeError
from mx8shards.media.mp4_boxes import with_index_first
from mx8shards.media.remuxing import remuxed
from mx8shards.media.video_cuts import frames_in, parts_of, seconds_of, span_of
from mx8shards.media.video_encoding import Encoding, reencoded
from mx8shards.media.video_index import index_video
from tests.videos import CELLS, CODECS, FPS, GOP, HEIGHT, WIDTH, decoded, encoded, luma_of, planes_of, video

av = pytest.importorskip("av")

X264 = Encoding("h264", 8, 20)


def all_planes(data: bytes) -> list[list[bytes]]:
    with av.open(io.BytesIO(data)) as container:
        return [planes_of(frame) for frame in container.decode(video=0)]


def times_of(index) -> list[Fraction]:
    return [int(time) * Fraction(*index.facts.time_base) for time in index.pts[index.frames]]


@pytest.mark.parametrize(("codec", "form"), CELLS)
def test_a_copy_in_mp4_has_equal_frames_and_times_and_its_index_in_front(codec, form):
    data = video(codec, form).data
    index = index_video(data).packets
    copy = remuxed(data, index)
    found = index_video(copy).packets
    assert copy.index(b"moov") < copy.index(b"mdat")
    assert all_planes(copy) == all_planes(data)
    times = times_of(index)
    assert times_of(found) == [time - min(times[0], 0) for time in times]
    assert (found.facts.slices, found.facts.rotation) == (True, index.facts.rotation)


@pytest.mark.parametrize(("codec", "form"), CELLS)
def test_parts_that_begin_at_keyframes_have_all_frames_once(codec, form):
    data = video(codec, form).data
    index = index_video(data).packets
    spans = parts_of(index, GOP / FPS)
    parts = [remuxed(io.BytesIO(data), index, span=span) for span in spans]
    assert len(parts) == 1 if (codec, form) == ("av1", "open") else len(parts) > 1
    assert [frame for part in parts for frame in all_planes(part)] == all_planes(data)


@pytest.mark.parametrize("form", ["open", "pyramid", "vfr", "edit list", "negative start"])
@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4"])
def test_a_part_between_any_two_frames_has_just_these(codec, form):
    if (codec, form) not in CELLS:
        return
    data, draw = video(codec, form).data, random.Random(f"{codec} {form}")
    index, frames = index_video(data).packets, all_planes(data)
    times = [*index.pts[index.frames].tolist(), index.facts.end]
    for _ in range(3):
        begin, end = sorted(draw.sample(range(len(times)), 2))
        part = remuxed(data, index, span=(times[begin], times[end]))
        assert all_planes(part) == frames[begin:end]
        found = index_video(part).packets
        assert len(found.frames) == end - begin
        assert times_of(found) == [
            (time - times[begin]) * Fraction(*index.facts.time_base) for time in times[begin:end]
        ]


def test_audio_goes_along_and_begins_with_its_part():
    data = encoded("h264", range(50), range(50), audio=True)
    index = index_video(data).packets
    span = span_of(index, 0.48, 1.48)
    with av.open(io.BytesIO(data)) as container:
        whole = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    with av.open(io.BytesIO(remuxed(data, index, span=span))) as container:
        frames = list(container.decode(audio=0))
        begin = frames[0].pts * frames[0].time_base
        part = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    assert abs(begin) * 16_000 <= 1
    first = int(np.argmin([np.abs(whole[at : at + 4000] - part[:4000]).sum() for at in range(6_500, 9_000)])) + 6_500
    assert abs(first - 7_680) <= 1
    assert 15_000 < len(part) < 17_500
    assert not index_video(remuxed(data, index, audio=False)).has_audio


def test_a_codec_that_mp4_does_not_hold_is_copied_whole_into_matroska():
    data = encoded("libvpx", range(20), range(20), suffix="mkv", options={"deadline": "good", "cpu-used": "5"})
    index = index_video(data).packets
    assert all_planes(remuxed(data, index)) == all_planes(data)
    with pytest.raises(DecodeError, match="expected codecs that MP4 holds, got vp8"):
        remuxed(data, index, span=(0, 400))


def test_times_of_parts_are_seconds_from_the_first_frame():
    index = index_video(video("h264", "negative start").data).packets
    span = span_of(index, 0.4, 0.8)
    assert seconds_of(index, span) == (0.4, 0.8)
    assert len(frames_in(index, span)) == 10
    assert seconds_of(index, span_of(index, None, 99.0)) == (0.0, 1.6)
    with pytest.raises(DecodeError, match=r"a part that begins before the video ends, at 1\.4 s, got 5 s"):
        frames_in(index, (5 * 90_000, 6 * 90_000))


def test_the_index_is_moved_once():
    copy = remuxed(video("h264").data, index_video(video("h264").data).packets)
    assert with_index_first(copy) == copy


@pytest.mark.parametrize(("codec", "form"), [cell for cell in CELLS if cell[0] == "h264" or cell[1] == "closed"])
def test_a_reencoded_video_has_all_frames_at_their_times_in_closed_gops(codec, form):
    made = video(codec, form)
    source, data = index_video(made.data).packets, reencoded(made.data, X264)
    found = index_video(data).packets
    times = times_of(source)
    assert times_of(found) == [time - times[0] for time in times]
    assert np.flatnonzero(found.keyframe).tolist() == list(range(0, len(made.numbers), X264.gop))
    if form == "rotated":
        assert (found.facts.width, found.facts.height, found.facts.rotation) == (HEIGHT, WIDTH, 0)
    else:
        assert [number for _, number in decoded(data)] == list(made.numbers)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_reencoding_turns_frames_as_they_are_shown(degrees, mirrored):
    picture = np.full((48, 64), 60, np.uint8)
    picture[:24, :32], picture[24:, 32:] = 220, 140
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5, options={"qscale": "2"}, width=64, height=48, pix_fmt="yuv420p")
        stream.set_display_rotation(-degrees, hflip=mirrored)
        frame = av.VideoFrame.from_ndarray(np.concatenate([picture, np.full((24, 64), 128, np.uint8)]), "yuv420p")
        container.mux([*stream.encode(frame), *stream.encode()])
    if mirrored:
        with pytest.raises(DecodeError, match="display matrix"):
            index_video(out.getvalue())
    else:
        assert index_video(out.getvalue()).packets.facts.rotation == degrees
    with av.open(io.BytesIO(reencoded(out.getvalue(), X264))) as container:
        (frame,) = container.decode(video=0)
        shown = luma_of(frame).astype(int)
    wanted = np.rot90(picture, -degrees // 90)
    wanted = wanted[:, ::-1] if mirrored else wanted
    assert shown.shape == wanted.shape
    assert np.abs(shown - wanted).mean() < 4


@pytest.mark.parametrize("fps", [Fraction(5), Fraction(30_000, 1001), Fraction(60)])
def test_a_new_rate_takes_the_frame_that_is_shown_at_each_time(fps):
    made = video("h264", "vfr")
    source = index_video(made.data).packets
    times = [time - times_of(source)[0] for time in times_of(source)]
    end = source.facts.end * Fraction(*source.facts.time_base) - times_of(source)[0]
    ticks = [count / fps for count in range(1000) if count / fps < end]
    shown = [max(number for number, time in enumerate(times) if time <= tick) for tick in ticks]
    data = reencoded(made.data, Encoding("h264", 8, 20, fps=fps))
    assert [number for _, number in decoded(data)] == shown


def test_av1_is_encoded_in_closed_gops_without_in_loop_filters():
    encoding = Encoding("av1", 8, 20)
    data = reencoded(video("h264").data, encoding)
    index = index_video(data).packets
    assert (index.facts.codec, np.flatnonzero(index.keyframe).tolist()) == ("av1", [0, 8, 16, 24, 32])
    assert [number for _, number in decoded(data)] == list(range(40))
    assert "enable-cdef=0" in encoding.options["svtav1-params"]


@pytest.mark.parametrize("encoding", [X264, Encoding("av1", 8, 20), Encoding("h264", 8, 20, max_side=48)])
def test_encoding_twice_gives_equal_bytes(encoding):
    data = video("mjpeg").data
    first = reencoded(data, encoding)
    kept = [bytes(range(256)) * 500 for _ in range(50)]  # other contents of the heap
    assert reencoded(data, encoding) == first
    assert len(kept) == 50


@pytest.mark.parametrize(
    ("size", "most", "wanted"),
    [
        ((854, 480), None, (854, 480)),
        ((854, 480), 256, (256, 144)),
        ((479, 853), 340, (190, 340)),
        ((63, 5), 8, (8, 2)),
    ],
)
def test_sides_of_encoded_frames_are_even(size, most, wanted):
    assert Encoding("h264", 16, 23, max_side=most).size(*size) == wanted


def test_ten_bits_become_eight_and_full_range_becomes_limited():
    data = reencoded(encoded("h264", range(3), range(3), pixel_format="yuv420p10le"), X264)
    assert index_video(data).packets.facts.pixel_format == "yuv420p"
    full = video("mjpeg").data
    index = index_video(reencoded(full, X264)).packets
    assert (index_video(full).packets.facts.range, index.facts.range) == (2, 1)
    assert [number for _, number in decoded(reencoded(full, X264))] == list(range(40))


def test_frames_of_avi_are_encoded_in_order_and_audio_is_copied():
    data = encoded("h264", range(20), range(20), suffix="avi")
    assert [number for _, number in decoded(reencoded(data, X264))] == list(range(20))
    data = encoded("h264", range(20), range(20), audio=True)
    assert index_video(reencoded(data, X264)).has_audio
    assert not index_video(reencoded(data, X264, audio=False)).has_audio


@pytest.mark.parametrize("codec", CODECS)
def test_a_damaged_video_is_refused_or_reencoded_without_another_error(codec):
    data, draw = bytearray(video(codec).data), random.Random(codec)
    for _ in range(6):
        data[draw.randrange(100, len(data))] ^= 1 << draw.randrange(8)
    try:
        index_video(reencoded(bytes(data), X264))
    except DecodeError:
        return


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_a_video_that_is_cut_short_is_not_reencoded(suffix):
    data = encoded("h264", range(30), range(30), suffix=suffix)
    with pytest.raises(DecodeError, match=rf"expected {len(data)} bytes|cut short"):
        reencoded(data[: len(data) * 3 // 4], X264)


def test_a_frame_whose_damage_the_decoder_conceals_is_not_reencoded():
    data = video("h264", "wrong rate").data
    index = index_video(data).packets
    reasons = set()
    for begin, size in zip(index.position.tolist(), index.size.tolist(), strict=True):
        damaged = (
            data[: begin + 30] + bytes(byte ^ 0x5A for byte in data[begin + 30 : begin + size]) + data[begin + size :]
        )
        try:
            index_video(damaged)
        except DecodeError as error:
            reasons.add(str(error.found).rstrip("0123456789"))
            with pytest.raises(DecodeError, match=str(error)):
                reencoded(damaged, X264)
    assert "damage in frame " in reasons
