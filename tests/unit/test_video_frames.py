"""Are frames of videos converted, resized and turned as a reference does it? (kernels.video_frames)"""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from mx8shards.errors import DecodeError
from mx8shards.format.packet_index import VideoFacts
from mx8shards.kernels import boxes, video_frames
from mx8shards.kernels.colour_conversion import value_table
from mx8shards.media.video_colour import FORMATS, check_colours, coefficients, frame_record
from tests.pixels import Array, resized

WIDTH, HEIGHT = 70, 42
LEVELS = value_table(np.ones(3), np.zeros(3), np.uint8)
MATRICES = {6: Colorspace.ITU601, 1: Colorspace.ITU709, 9: Colorspace.BT2020}
ACCURATE = (
    Interpolation.BILINEAR
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)


def facts(**some: Any) -> VideoFacts:
    given = {
        "codec": "vp9",
        "pixel_format": "yuv420p",
        "width": WIDTH,
        "height": HEIGHT,
        "rotation": 0,
        "time_base": (1, 25),
        "sample_aspect": (1, 1),
        "matrix": 6,
        "range": 1,
        "siting": 0,
        "reorder": 0,
        "end": 1,
        "stream": 0,
        "slices": True,
        "decoded": True,
    }
    return VideoFacts(**(given | some))


def random_frame(pixel_format: str, seed: int = 0) -> tuple[av.VideoFrame, tuple[Array, ...]]:
    """A frame of random samples, and its planes with their padding."""
    frame, planes = av.VideoFrame(WIDTH, HEIGHT, pixel_format), []
    random = np.random.default_rng(seed)
    for plane in frame.planes:
        rows = random.integers(0, 256, (plane.height, plane.line_size), dtype=np.uint8)
        rows[:, : plane.width] = random.integers(16, 236, (plane.height, plane.width))
        plane.update(rows.tobytes())
        planes.append(rows)
    return frame, tuple(planes) if len(planes) == 3 else (planes[0], *[np.zeros((0, 1), np.uint8)] * 2)


def box_of(frame: Any, shape: tuple[int, int], kind: int = boxes.COVER, flip: bool = False) -> Any:
    crop: Any = np.zeros(1, boxes.CROP)[0]
    crop["kind"], crop["height"], crop["width"], crop["flip"] = kind, *shape, 2.0 * flip
    box: Any = np.zeros(1, boxes.BOX)[0]
    video_frames.find_frame_box(crop, np.zeros(boxes.DRAWS), frame, box)
    return box


def scratch_for(frame: Any, box: Any) -> tuple[Array, Array]:
    """Scratch that is as small as allowed, and the bytes behind it."""
    need = int(video_frames.frame_scratch_bytes(frame, box))
    memory = np.full(need + 192, 171, np.uint8)
    memory = memory[-memory.ctypes.data % 64 :]
    return memory[:need], memory[need : need + 64]


def cropped(planes: tuple[Array, ...], frame: Any, box: Any) -> Array:
    """The RGB pixels of a crop, height × width × 3."""
    out = np.full(3 * int(box["height"] * box["width"]) + 64, 171, np.uint8)
    scratch, behind = scratch_for(frame, box)
    video_frames.crop_frame(planes, frame, box, LEVELS, True, False, scratch, out[:-64])
    assert (behind == 171).all()
    assert (out[-64:] == 171).all()
    return out[:-64].reshape(int(box["height"]), int(box["width"]), 3)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full", [False, True])
def test_unscaled_pixels_are_within_two_levels_of_swscale(pixel_format: str, matrix: int, full: bool) -> None:
    frame, planes = random_frame(pixel_format)
    expected = frame.reformat(
        format="rgb24",
        src_colorspace=MATRICES[matrix],
        dst_colorspace=MATRICES[matrix],
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=ACCURATE,
    ).to_ndarray()
    record = frame_record(facts(pixel_format=pixel_format, matrix=matrix, range=1 + full))[0]
    found = cropped(planes, record, box_of(record, (HEIGHT, WIDTH), boxes.NATIVE))
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_untagged_videos_have_limited_range_and_the_matrix_of_their_height() -> None:
    sd, hd = (frame_record(facts(matrix=2, range=0, height=rows))["colour"][0] for rows in (576, 577))
    assert (sd == coefficients(6, full=False)).all()
    assert (hd == coefficients(1, full=False)).all()
    assert np.allclose(sd[:2], [255 / 219, 0.5 - 16 * 255 / 219])
    assert frame_record(facts(pixel_format="yuvj420p", matrix=2))["colour"][0, 0] == 1


def test_untagged_chroma_is_on_the_left_where_the_codec_says_so() -> None:
    shifts = {codec: frame_record(facts(codec=codec))["shift_x"][0] for codec in ("h264", "hevc", "vp9", "mjpeg")}
    assert shifts == {"h264": 0.25, "hevc": 0.25, "vp9": 0, "mjpeg": 0}
    assert frame_record(facts(codec="h264", pixel_format="yuv444p"))["shift_x"][0] == 0


def test_other_formats_and_matrices_are_refused_by_name() -> None:
    with pytest.raises(DecodeError, match=r"expected 8 bits.*got yuv420p10le"):
        frame_record(facts(pixel_format="yuv420p10le"))
    with pytest.raises(DecodeError, match=r"expected a colour matrix of bt709, fcc.*got ycgco"):
        frame_record(facts(matrix=8))
    with pytest.raises(DecodeError, match=r"got code 14"):
        check_colours(facts(matrix=14))


def reference(planes: tuple[Array, ...], form: Any, shift: float, box: Any, shape: tuple[int, int]) -> Array:
    """A resized box of a frame in RGB, in float64."""
    edges = box["left"], box["top"], box["right"], box["bottom"]
    luma = resized(planes[0], edges, (0, 0, WIDTH, HEIGHT), shape)
    scale = np.array([form.across, form.down] * 2)
    moved = tuple(np.array(edges) / scale + [shift, 0, shift, 0])
    size = -(-WIDTH // form.across), -(-HEIGHT // form.down)
    blue, red = (resized(plane, moved, (0, 0, *size), shape) - 128 for plane in planes[1:])
    numbers = coefficients(6, full=False).astype(np.float64)
    grey = luma * numbers[0] + numbers[1] - 0.5
    rgb = grey + numbers[2] * red, grey - numbers[3] * blue - numbers[4] * red, grey + numbers[5] * blue
    return np.clip(np.stack(rgb, axis=2), 0, 255)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize("codec", ["h264", "vp9"])
@pytest.mark.parametrize("shape", [(20, 30), (60, 50)])
def test_resized_pixels_are_close_to_float64(pixel_format: str, codec: str, shape: tuple[int, int]) -> None:
    _, planes = random_frame(pixel_format, 3)
    record = frame_record(facts(pixel_format=pixel_format, codec=codec))[0]
    box = box_of(record, shape)
    expected = reference(planes, FORMATS[pixel_format], float(record["shift_x"]), box, shape)
    # each plane is rounded twice, by at most 0.5; a colour is a sum of up to 1.164 + 2.017 planes, and is rounded too
    assert np.abs(cropped(planes, record, box) - expected).max() <= (1.164 + 2.017) * 1.01 + 0.5


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", [(24, 24), (18, 30), (HEIGHT, WIDTH), (WIDTH, HEIGHT)])
def test_rotated_frames_are_those_of_a_rotated_picture(rotation: int, flip: bool, shape: tuple[int, int]) -> None:
    _, planes = random_frame("yuv444p", 4)
    upright = tuple(np.ascontiguousarray(np.rot90(plane[:, :WIDTH], -rotation // 90)) for plane in planes)
    height, width = upright[0].shape
    turned = frame_record(facts(pixel_format="yuv444p", rotation=rotation))[0]
    plain = frame_record(facts(pixel_format="yuv444p", width=width, height=height))[0]
    expected = cropped(upright, plain, box_of(plain, shape, flip=flip))
    found = cropped(planes, turned, box_of(turned, shape, flip=flip))
    assert np.abs(found.astype(int) - expected).max() <= 4  # the passes of resizing have another order


def test_grey_frames_have_equal_channels() -> None:
    _, planes = random_frame("gray")
    record = frame_record(facts(pixel_format="gray", range=2))[0]
    found = cropped(planes, record, box_of(record, (HEIGHT, WIDTH)))
    assert (found == planes[0][:, :WIDTH, None]).all()


def cropped_planes(planes: tuple[Array, ...], frame: Any, box: Any) -> tuple[Array, Array]:
    height, width = int(box["height"]), int(box["width"])
    luma, chroma = np.zeros(height * width, np.uint8), np.zeros(height * width // 2, np.uint8)
    scratch, behind = scratch_for(frame, box)
    video_frames.crop_frame_planes(planes, frame, box, scratch, luma, chroma)
    assert (behind == 171).all()
    return luma.reshape(height, width), chroma.reshape(2, height // 2, width // 2)


@pytest.mark.parametrize("codec", ["h264", "vp9"])
@pytest.mark.parametrize("turns", range(4))
def test_unscaled_planes_are_copied(codec: str, turns: int) -> None:
    _, planes = random_frame("yuv420p")
    record = frame_record(facts(codec=codec, rotation=90 * turns))[0]
    shape = (WIDTH, HEIGHT) if turns % 2 else (HEIGHT, WIDTH)
    luma, chroma = cropped_planes(planes, record, box_of(record, shape))
    assert (luma == np.rot90(planes[0][:, :WIDTH], -turns)).all()
    for found, plane in zip(chroma, planes[1:], strict=True):
        assert (found == np.rot90(plane[:, : WIDTH // 2], -turns)).all()


def test_resized_planes_keep_their_colour() -> None:
    _, planes = random_frame("yuv444p", 5)
    for plane, level in zip(planes, (100, 50, 200), strict=True):
        plane[:, :WIDTH] = level
    record = frame_record(facts(pixel_format="yuv444p"))[0]
    luma, chroma = cropped_planes(planes, record, box_of(record, (20, 20)))
    assert (luma == 100).all()
    assert (chroma[0] == 50).all()
    assert (chroma[1] == 200).all()
