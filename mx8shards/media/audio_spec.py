"""Which decoder of sound does `decode=` accept? Audio: the sound of the same clips as the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mx8shards.errors import whole_number

if TYPE_CHECKING:
    from mx8shards.stages import DecoderContext, Stage

_RATES = 1_000, 384_000


@dataclass(frozen=True)
class Audio:
    """The sound of clips: from the time at which a clip's first frame is shown until its last one is no longer shown.

    Give it for the column of videos with `.audio` behind its name: `decode={"video": mx8.Clip(112), "video.audio":
    mx8.Audio()}`. A batch has it as Ragged under that key, because clips may differ in length: row i is a float32 array
    `[channels, samples]`, exact to one sample; the time before and after a video's sound is silence. A video without
    sound is a bad sample, to which `on_error=` applies. It needs the whole container, so rows that are not in memory
    are read ahead as a whole.

    Args:
        rate: Samples per second, from 1000 to 384000, to which the sound is converted.
        channels: 1 or 2.
    """

    rate: int = 16_000
    channels: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", whole_number("Audio: rate", self.rate, *_RATES))
        object.__setattr__(self, "channels", whole_number("Audio: channels", self.channels, 1, 2))

    def stage(self, context: DecoderContext) -> Stage:
        """The stage that decodes it."""
        from mx8shards.media.audio_stage import AudioClips  # imported here because it loads Numba

        return AudioClips(self.rate, self.channels, context)
