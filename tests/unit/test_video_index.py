"""Does a packet index lead to the frames of a full decode, in every codec and form, and are bad files refused?"""

from __future__ import annotations

import io
import random
from functools import cache

import numpy as np
import pytest

from mx8shards.errors import DecodeError
from mx8shards.format.packet_index import encode_packet_index, parse_packet_index
from mx8shards.media.chroma_siting import siting_of
from mx8shards.media.containers import FORMATS, opened
from mx8shards.media.video_index import index_video
from tests.videos import CELLS, CUT, FPS, FRAMES, HEIGHT, WIDTH, decoded, encoded, luma_of, number_in, planes_of, video

av = pytest.importorskip("av")

DECODERS = {"av1": "libdav1d"}


@cache
def frames_of(data: bytes) -> list[tuple[int, list[bytes]]]:
    """The number and the planes of every frame, by a full sequential decode."""
    with av.open(io.BytesIO(data)) as container:
        return [(number_in(luma_of(frame)), planes_of(frame)) for frame in container.decode(video=0)]


def decode_frames(payload: bytes, index, wanted: list[int]) -> list[list[bytes]]:
    """The planes of the frames with these numbers, by only the packets that they need."""
    packets = index.frames[wanted]
    times = index.pts[packets]
    begins = np.flatnonzero(index.keyframe & (index.pts <= times.min()))
    first = begins[begins <= packets.min()][-1]
    decoder = av.CodecContext.create(DECODERS.get(index.facts.codec, index.facts.codec), "r")
    decoder.extradata = index.extradata or None
    decoder.reorder_depth = index.facts.reorder
    decoder.thread_count = 1
    found = {}
    for number in range(first, packets.max() + 1):
        if index.disposable[number] and number not in packets:
            continue
        packet = av.Packet(payload[index.position[number] : index.position[number] + index.size[number]])
        packet.pts, packet.dts = int(index.pts[number]), int(index.dts[number])
        for frame in decoder.decode(packet):
            found[frame.pts] = planes_of(frame)
    for frame in decoder.decode(None):
        found[frame.pts] = planes_of(frame)
    return [found[int(time)] for time in times]


@pytest.mark.parametrize(("codec", "form"), CELLS)
def test_the_index_of_every_cell_has_the_frames_of_a_full_decode(codec, form):
    made = video(codec, form)
    index = index_video(made.data).packets
    full = decoded(made.data)
    assert [number for _, number in full] == list(made.numbers)
    assert index.pts[index.frames].tolist() == [time for time, _ in full]
    assert index.facts.rotation == made.rotation
    assert (index.facts.codec, index.facts.width, index.facts.height) == (codec, WIDTH, HEIGHT)
    again = parse_packet_index(encode_packet_index(index), len(made.data))
    assert again.facts == index.facts
    for name in ("pts", "dts", "position", "size", "keyframe", "disposable", "shown"):
        np.testing.assert_array_equal(getattr(again, name), getattr(index, name))


@pytest.mark.parametrize(("codec", "form"), CELLS)
def test_random_frames_decoded_by_the_index_are_those_of_a_full_decode(codec, form):
    made = video(codec, form)
    index = index_video(made.data).packets
    if not index.facts.slices:
        assert form == "negative start"  # in MPEG-TS
        return
    full = frames_of(made.data)
    draw = random.Random(f"{codec} {form}")
    for _ in range(12):
        wanted = sorted(draw.sample(range(len(full)), draw.choice((1, 1, 3))))
        assert decode_frames(made.data, index, wanted) == [full[number][1] for number in wanted]


def test_packets_that_an_edit_list_cuts_off_are_not_shown():
    index = index_video(video("h264", "edit list").data).packets
    assert len(index.pts) == FRAMES
    assert np.flatnonzero(~index.shown).tolist() == np.flatnonzero(index.pts < 0).tolist()
    assert (~index.shown).sum() == CUT


def test_a_video_ends_when_its_last_frame_does():
    facts = index_video(video("h264").data).packets.facts
    assert facts.end * FPS * facts.time_base[0] == FRAMES * facts.time_base[1]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize(("form", "least"), [("closed", 0.5), ("pyramid", 0.4)])
def test_the_bits_of_h264_and_hevc_say_which_packets_can_be_left_out(codec, form, least):
    index = index_video(video(codec, form).data).packets
    assert index.disposable.mean() > least
    assert not index.disposable[index.keyframe].any()


def test_every_packet_of_motion_jpeg_is_a_keyframe_and_can_be_left_out():
    index = index_video(video("mjpeg").data).packets
    assert index.keyframe.all()
    assert index.disposable.all()


@pytest.mark.parametrize("suffix", ["mkv", "avi", "mov", "flv"])
def test_packets_of_other_containers_are_found_in_the_payload(suffix):
    data = encoded("h264", range(20), range(20), suffix=suffix)
    index = index_video(data).packets
    assert index.facts.slices
    assert len(index.frames) == 20
    assert [decode_frames(data, index, [n])[0] for n in (3, 17)] == [frames_of(data)[n][1] for n in (3, 17)]


def test_avi_without_times_of_presentation_has_its_frames_in_order():
    data = encoded("h264", range(20), range(20), suffix="avi")
    index = index_video(data).packets
    assert np.diff(index.pts[index.frames]).tolist() == [1] * 19
    assert index_video(data, decode=False).packets.pts.tolist() == index.pts.tolist()


def test_without_decoding_the_index_is_equal_but_for_the_note():
    data = video("h264", "open").data
    quick, whole = index_video(data, decode=False).packets, index_video(data).packets
    assert (quick.facts.decoded, whole.facts.decoded) == (False, True)
    for name in ("pts", "dts", "position", "size", "keyframe", "disposable", "shown"):
        np.testing.assert_array_equal(getattr(quick, name), getattr(whole, name))


@pytest.mark.parametrize("suffix", ["mp4", "mpegts"])
@pytest.mark.parametrize("place", [None, 1, 2, 5])  # 0 is what x264 does not write
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p"])
def test_the_place_of_chroma_samples_is_that_of_the_sequence_parameter_set(suffix, place, pixels):
    tag = "" if place is None else f":chromaloc={place}:sar=4/3:colormatrix=bt709:overscan=crop"
    options = {"preset": "ultrafast", "x264-params": f"keyint=4{tag}"}
    data = encoded("h264", range(3), range(3), suffix=suffix, options=options, pixel_format=pixels)
    facts = index_video(data).packets.facts
    wanted = None if pixels == "yuv444p" else place  # which has nothing to place
    assert facts.siting == (0 if wanted is None else wanted + 1)
    assert facts.matrix == (2 if place is None else 1)
    assert facts.sample_aspect == ((1, 1) if place is None else (4, 3))


@pytest.mark.parametrize("place", [None, 0, 2, 5])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mpegts"])
@pytest.mark.parametrize("more", ["", ":scaling-list=default:ref=4:bframes=4:b-pyramid=1:temporal-layers=2:aq-mode=0"])
def test_the_place_of_chroma_samples_in_hevc(suffix, place, more):
    tag = "" if place is None else f":chromaloc={place}:sar=2:colormatrix=bt709:overscan=crop"
    options = {"preset": "ultrafast", "x265-params": f"log-level=none:keyint=4{more}{tag}"}
    facts = index_video(encoded("hevc", range(3), range(3), suffix=suffix, options=options)).packets.facts
    assert facts.siting == (0 if place is None else place + 1)


@pytest.mark.parametrize(("place", "code"), [("unknown", 0), ("vertical", 1), ("colocated", 3)])
def test_the_place_of_chroma_samples_in_av1(place, code):
    options = {"preset": "12", "svtav1-params": f"chroma-sample-position={place}"}
    facts = index_video(encoded("av1", range(3), range(3), options=options)).packets.facts
    assert facts.siting == code


def test_the_box_of_vp9_in_mp4_is_not_believed_because_ffmpeg_writes_a_place_that_it_does_not_know():
    data = encoded("vp9", range(3), range(3), suffix="mp4")
    record = data[data.index(b"vpcC") + 8 :]  # profile, level, then depth, chroma subsampling and range
    assert record[2] >> 1 & 7 == 1  # colocated with luma
    facts = index_video(data).packets.facts
    assert (facts.codec, facts.siting) == ("vp9", 0)


def test_truncated_sequence_parameter_sets_have_no_place_of_chroma():
    draw = random.Random(1)
    for codec, options in (
        ("h264", {"x264-params": "chromaloc=2:cqm=jvt"}),
        ("hevc", {"x265-params": "chromaloc=2:log-level=none"}),
    ):
        extradata = index_video(encoded(codec, range(2), range(2), options=options)).packets.extradata
        assert siting_of(codec, extradata) == 3
        for end in range(len(extradata)):
            assert siting_of(codec, extradata[:end]) in (0, 3)
        for _ in range(500):
            damaged = bytearray(extradata)
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            assert siting_of(codec, bytes(damaged)) in range(7)


def test_audio_is_noticed():
    assert not index_video(video("h264").data).has_audio
    assert index_video(encoded("h264", range(10), range(10), audio=True)).has_audio


def audio_only() -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), "s16", "mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def cut(suffix: str) -> bytes:
    data = encoded("mpeg4", range(20), range(20), suffix=suffix)
    return data[: len(data) * 6 // 10]


def matrix(name: str) -> bytes:
    return encoded("h264", range(5), range(5), options={"x264-params": f"colormatrix={name}"})


def changing_size() -> bytes:
    """JPEGs of two sizes in one stream."""
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as container:
        stream = container.add_stream("mjpeg", rate=FPS, width=96, height=64, pix_fmt="yuvj420p")
        for time, width in enumerate((96, 96, 64)):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = width, 64, "yuvj420p", FPS
            (packet,) = encoder.encode(av.VideoFrame(width, 64, "yuvj420p"))
            packet.pts = packet.dts = time
            packet.stream = stream
            container.mux(packet)
    return out.getvalue()


def negative_flv():
    """The times of frames with B-frames begin below 0, which muxers usually prevent."""
    out, keep = io.BytesIO(), {"avoid_negative_ts": "disabled"}
    with (
        av.open(io.BytesIO(video("h264").data)) as source,
        av.open(out, "w", format="flv", container_options=keep) as flv,
    ):
        stream = flv.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                flv.mux(packet)
    return out.getvalue()


REFUSED = {
    "empty": (lambda: b"", "an empty file"),
    "no video at all": (lambda: bytes(range(256)) * 9, "invalid data"),
    "a playlist": (lambda: b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n", "expected a whole video"),
    "a list of files": (lambda: b"ffconcat version 1.0\nfile /etc/passwd\n", "expected a whole video"),
    "no container": (
        lambda: encoded("h264", range(5), range(5), suffix="h264"),
        "video in MP4, .*, got another format",
    ),
    "audio only": (audio_only, "only streams of audio"),
    "another codec": (lambda: encoded("ffv1", range(5), range(5), suffix="mkv", options={"level": "3"}), "got ffv1"),
    "10 bits": (lambda: encoded("h264", range(5), range(5), pixel_format="yuv420p10le"), "got yuv420p10le"),
    "a matrix that is no mix of luma and two chroma": (lambda: matrix("ycgco"), "got ycgco"),
    "a matrix for linear light": (lambda: matrix("bt2020c"), "got bt2020c"),
    "cut MP4": (lambda: cut("mp4"), "invalid data"),
    "cut Matroska": (lambda: cut("mkv"), r"bytes \(its head\)"),
    "cut AVI": (lambda: cut("avi"), r"bytes \(its head\)"),
    "negative times in FLV": (negative_flv, "expected times of FLV from 0 on"),
    "changing size": (changing_size, "yuvj420p 64 x 64 and yuvj420p 96 x 64"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_clips_cannot_be_decoded_from_is_refused_with_the_reason(kind):
    make, reason = REFUSED[kind]
    with pytest.raises(DecodeError, match=reason):
        index_video(make())


def test_damaged_bytes_are_refused_or_leave_a_valid_index():
    data, draw, refused = video("h264").data, random.Random(3), 0
    for _ in range(40):
        damaged = bytearray(data)
        for _ in range(4):
            damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        try:
            index = index_video(bytes(damaged)).packets
        except DecodeError:
            refused += 1
        else:
            parse_packet_index(encode_packet_index(index), len(data))
    assert refused > 20


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "mpeg4", "vp9"])
def test_a_keyframe_that_needs_other_packets_is_none(codec):
    """All packets of a copy are marked as keyframes, as a wrong container could."""
    data = video(codec).data
    out = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(out, "w", format="mp4") as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.is_keyframe, packet.stream = True, stream
                target.mux(packet)
    truth, index = index_video(data).packets, index_video(out.getvalue()).packets
    np.testing.assert_array_equal(index.keyframe, truth.keyframe)


def test_only_files_of_known_formats_are_opened():
    assert not {"hls", "concat", "dash", "image2", "rtsp", "sdp"} & set(FORMATS)


@pytest.mark.parametrize("error", [IndexError("list index out of range"), AttributeError("no width"), ValueError("")])
def test_errors_that_pyav_raises_for_odd_files_are_about_the_video(error):
    with pytest.raises(DecodeError, match="expected a whole video, got"), opened(video("h264").data):
        raise error


def test_errors_that_say_what_is_wrong_with_a_video_are_kept():
    with pytest.raises(DecodeError, match="expected this"), opened(video("h264").data):
        raise DecodeError(expected="this", found="that")
