"""Which decoder of videos does `decode=` accept? Clip: the pixels of clips, whose times the view has chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from mx8shards.errors import SettingError, one_of, shown
from mx8shards.media.specs import Crop, ResizeCrop

if TYPE_CHECKING:
    from mx8shards.stages import DecoderContext, Stage

LAYOUTS = ("TCHW", "THWC", "CTHW", "planes")


@dataclass(frozen=True)
class Clip:
    """Clips of videos, cropped and resized to one size. All frames of a clip have the same crop.

    It needs a view of clips: `dataset.clips("video", frames=16)`. Frames are decoded exactly, and rotated as the video
    says. A batch has the pixels under the column's name, and beside them, for a column `video`: `video.frames`, the
    numbers of the frames in the video; `video.mask`, False for frames that only fill up a clip; `video.start` and
    `video.end`, the seconds from the first frame of the video at which the clip begins and ends.

    Args:
        size: The height and width of the frames in pixels, or one number for both: the largest centred part of that
            aspect ratio, resized. It may be left out if `crop` is given.
        crop: Another crop: `CenterCrop(…)`, `RandomResizedCrop(…)` or `ResizeCrop(…)`. Its `flip`, `dtype`, `mean`,
            `std` and `seed` apply as for pictures. The draw depends on seed, epoch, sample and clip.
        layout: The order of the axes after the batch's: "TCHW", "THWC" or "CTHW", where T are the frames. "planes":
            luma `[T, height, width]` and, as `video.chroma`, both chroma planes `[T, 2, height/2, width/2]`, with half
            the bytes; `video.colour` has the six numbers that convert them to RGB.
    """

    size: int | tuple[int, int] | None = None
    crop: Crop | None = None
    layout: Literal["TCHW", "THWC", "CTHW", "planes"] = "TCHW"

    def __post_init__(self) -> None:
        one_of("Clip: layout", self.layout, LAYOUTS)
        crop = self._crop()
        if self.size is not None and self._whole().size != crop.size:
            _refuse("size", f"{crop.size}, the size of its crop, or None", self.size)
        if crop.exact or crop.upright or crop.layout != "CHW":
            _refuse("crop", "a crop without exact=, upright= and layout=, which are for pictures", crop)
        if self.layout == "planes" and crop.dtype != "uint8":
            _refuse("layout", "another one than 'planes' for a float dtype", self.layout)
        if self.layout == "planes" and any(side % 2 for side in crop.sides):
            _refuse("size", "even numbers for layout='planes'", crop.size)
        object.__setattr__(self, "size", crop.size)

    def _crop(self) -> Crop:
        """The crop: the largest centred one if none is given."""
        given: Any = self.crop
        if given is not None and not isinstance(given, Crop):
            _refuse("crop", "a crop, such as mx8.RandomResizedCrop(112)", given)
        if given is None and self.size is None:
            _refuse("size", "pixels: one number, or height and width", None)
        found: Crop = given or self._whole()
        return found

    def _whole(self) -> ResizeCrop:
        """The largest centred part, resized."""
        try:
            return ResizeCrop(self.size)  # type: ignore[arg-type]
        except SettingError as error:
            error.subject = "Clip: size"
            raise

    def stage(self, context: DecoderContext) -> Stage:
        """The stage that decodes these clips."""
        from mx8shards.media.clip_stage import Clips  # imported here because it loads Numba

        return Clips(self._crop()._settings(), self.layout, context)


def _refuse(name: str, expected: str, found: object) -> NoReturn:
    raise SettingError(subject=f"Clip: {name}", expected=expected, found=shown(found))
