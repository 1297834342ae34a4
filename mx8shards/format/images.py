"""How are PIL images, and lists of them, encoded as payloads (pil, jpeg, png, list[…])?"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import TYPE_CHECKING, Any

from mx8shards.errors import DecodeError, FormatError, SchemaError, require
from mx8shards.format.codec import Codec, Encoding, brief, describe
from mx8shards.format.picture_files import open_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYOUTS = ("CHW", "HWC")  # the order of a decoded picture's axes: channels, height, width

_PIL_HEADER = struct.Struct("<III")
_COUNT = struct.Struct("<I")

# Both picture encodings decode both formats: bytes are stored unchecked, and folders of "JPEGs" contain some PNGs
# (ImageNet has one). Every further format would expose one more parser to untrusted bytes.
_FORMATS = ("JPEG", "PNG")

# Bits per pixel of Image.tobytes(), whose rows are padded to whole bytes. Other modes have no verifiable raw form.
_BITS = {
    **dict.fromkeys(("1",), 1),
    **dict.fromkeys(("L", "P"), 8),
    **dict.fromkeys(("LA", "La", "PA", "I;16", "I;16L", "I;16B", "I;16N"), 16),
    **dict.fromkeys(("RGB", "YCbCr", "LAB", "HSV"), 24),
    **dict.fromkeys(("RGBA", "RGBa", "RGBX", "CMYK", "I", "F"), 32),
}


def _image() -> Any:
    return require("PIL.Image", "images")


class Pil(Codec):
    """`pil`: uint32 width, height and length of the mode; the mode; the raw pixels. A palette is not stored."""

    takes = "PIL image"

    def pack(self, value: Any) -> bytes:
        _check_image(self, value)
        width, height = value.size
        if value.mode not in _BITS or not width or not height:
            self.refuse(value, hint=f"its mode is {value.mode}, its size {width} × {height}")
        mode: bytes = value.mode.encode()
        pixels: bytes = _pixels(self, value, value.tobytes)
        return _PIL_HEADER.pack(width, height, len(mode)) + mode + pixels

    def unpack(self, payload: bytes | memoryview) -> Any:
        if len(payload) < _PIL_HEADER.size:
            raise self.damaged(f"{len(payload)} bytes")
        width, height, length = _PIL_HEADER.unpack_from(payload)
        begin = _PIL_HEADER.size + length
        mode = bytes(payload[_PIL_HEADER.size : begin][:8]).decode("ascii", "replace")
        if length > 8 or mode not in _BITS:
            raise self.damaged(f"mode {mode!r}")
        size_bytes = (width * _BITS[mode] + 7) // 8 * height
        if not size_bytes or size_bytes != len(payload) - begin:
            raise self.damaged(f"{len(payload) - begin} bytes for {width} × {height} pixels of {mode}")
        Image = _image()  # noqa: N806
        try:
            return Image.frombytes(mode, (width, height), payload[begin:])
        except Exception as error:
            raise self.damaged(brief(error) or describe(error)) from error


class Picture(Codec):
    """`jpeg`, `png`: a picture file. Decoding checks the header; PIL decodes the pixels on first access."""

    takes = "PIL image"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._format = name.upper()

    def pack(self, value: Any) -> bytes:
        _check_image(self, value)
        file = BytesIO()
        _pixels(self, value, lambda: value.save(file, format=self._format))
        return file.getvalue()

    def unpack(self, payload: bytes | memoryview) -> Any:
        _image()
        try:
            return open_picture(bytes(payload), _FORMATS)
        except DecodeError as error:  # its cost is out of proportion to its size
            raise FormatError(expected=error.expected, found=error.found) from error
        except Exception as error:
            start = bytes(payload[:8]).hex(" ") or "no bytes"
            raise FormatError(expected="a JPEG or PNG file", found=start, hint=type(error).__name__) from error


class Jpeg(Picture):
    """`jpeg`: the file itself, if the image is a JPEG opened by path and the file exists; otherwise PIL's encoding.

    This is Streaming's rule. It means that in-place changes of such an image are not stored, but changes of its
    `.copy()` are.
    """

    def pack(self, value: Any) -> bytes:
        opened = isinstance(value, require("PIL.JpegImagePlugin", "images").JpegImageFile)
        if opened and getattr(value, "filename", None):
            try:
                with open(value.filename, "rb") as file:
                    whole: bytes = file.read()
                    return whole
            except FileNotFoundError:
                pass
            except OSError as error:
                self.refuse(value, cause=error)
        return super().pack(value)


class Items(Codec):
    """`list[pil]`, `list[jpeg]`, `list[png]`: uint32 0, uint32 count, a uint32 size per item, the items."""

    takes = "list"
    _prefix = b"\0\0\0\0"
    _least = 0

    def __init__(self, name: str, item: Encoding) -> None:
        super().__init__(name)
        self._item = item

    def pack(self, value: Any) -> bytes:
        if not isinstance(value, (list, tuple)) or len(value) < self._least:
            self.refuse(value)
        items = [self._encoded(i, item) for i, item in enumerate(value)]
        sizes = struct.pack(f"<{len(items)}I", *map(len, items))
        return b"".join((self._prefix, _COUNT.pack(len(items)), sizes, *items))

    def unpack(self, payload: bytes | memoryview) -> list[Any]:
        payload = memoryview(payload)
        begin = len(self._prefix)
        if payload[:begin] != self._prefix or len(payload) < begin + 4:
            raise self.damaged(f"{bytes(payload[:8]).hex(' ') or 'no bytes'}")
        (count,) = _COUNT.unpack_from(payload, begin)
        begin += 4
        if count < self._least or 4 * count > len(payload) - begin:
            raise self.damaged(f"{count} items in {len(payload)} bytes")
        sizes = struct.unpack_from(f"<{count}I", payload, begin)
        begin += 4 * count
        if sum(sizes) != len(payload) - begin:
            raise self.damaged(f"items of {sum(sizes)} bytes in {len(payload) - begin}")
        return self._decoded(payload[begin:], sizes)

    def _encoded(self, i: int, item: Any) -> bytes:
        try:
            return self._item.encode(item)
        except SchemaError as error:
            raise error.at(place=f"item {i}") from error.__cause__

    def _decoded(self, payload: memoryview, sizes: Sequence[int]) -> list[Any]:
        values, begin = [], 0
        for i, size in enumerate(sizes):
            try:
                values.append(self._item.decode(payload[begin : begin + size]))
            except FormatError as error:
                raise error.at(place=f"item {i}") from error.__cause__
            begin += size
        return values


class JpegArray(Items):
    """`jpegarray`, `jpeg_array`: one or more JPEG files, given as bytes; like `list[jpeg]` without the leading 0."""

    takes = "list of one or more JPEG files as bytes"
    _prefix = b""
    _least = 1

    def _encoded(self, i: int, item: Any) -> bytes:
        if not isinstance(item, (bytes, bytearray, memoryview)):
            raise SchemaError(place=f"item {i}", expected="a JPEG file as bytes", found=describe(item))
        return bytes(item)


def _check_image(codec: Codec, value: Any) -> None:
    if not isinstance(value, _image().Image):
        codec.refuse(value)


def _pixels(codec: Codec, value: Any, convert: Any) -> Any:
    """The result of `convert`, which decodes the image; SchemaError if it is damaged or does not fit the format."""
    try:
        return convert()
    except Exception as error:  # noqa: BLE001 - PIL's decoders and encoders raise many types
        codec.refuse(value, hint=f"{brief(error)}; its mode is {value.mode}", cause=error)
