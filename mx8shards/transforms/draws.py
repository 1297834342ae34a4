"""Which random numbers belong to the rows of a batch?"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mx8shards.format import randomness
from mx8shards.transforms.picture_tensor import Rows

Floats = npt.NDArray[np.float64]

_POINTS = 4096
_TAIL = 40.0  # what lies beyond has a probability of e**-40


def uniforms(batch: Rows, purpose: str, count: int) -> Floats:
    """`count` numbers in [0, 1) for each row: those of its sample in this epoch (spec §11), whatever batch it is in.

    Repeats of a sample draw numbers of their own, where the batch says which occurrence a row is.
    """
    ids = batch.sample_ids
    on_host = np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)
    occurrences = randomness.occurrences_of(getattr(batch, "extras", {}))
    return randomness.uniforms(batch.seed, batch.epoch, on_host, purpose, count, occurrences)


def betas(uniform: Floats, alpha: float) -> Floats:
    """Uniform numbers as draws from Beta(alpha, alpha): its quantiles, to about 1e-5.

    The logit of such a draw has the density cosh(x / 2) ** (-2 alpha), which is smooth for every alpha.
    """
    below, logits = _lower_half(alpha)
    size = np.exp(np.interp(np.minimum(uniform, 1 - uniform), below, logits))  # of the odds, at most 1
    small: Floats = size / (1 + size)
    return np.where(uniform < 0.5, small, 1 - small)


@lru_cache(maxsize=16)
def _lower_half(alpha: float) -> tuple[Floats, Floats]:
    """The distribution of the logit, from far out to its median: probabilities, and where they are reached."""
    logits = np.linspace(-_TAIL / alpha - 2, 0, _POINTS)
    density = np.exp(-2 * alpha * (np.logaddexp(logits / 2, -logits / 2) - np.log(2)))
    steps = (density[1:] + density[:-1]) / 2
    below = np.concatenate([np.zeros(1), np.cumsum(steps)])
    return below / (2 * below[-1]), logits
