"""How are random numbers drawn for the rows of a batch (uniform, Beta)?"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mx8shards.format import randomness
from mx8shards.transforms.picture_tensor import BatchLike

Floats = npt.NDArray[np.float64]

_POINTS = 4096
_TAIL = 40.0  # the neglected tail has a probability of e**-40


def uniforms(batch: BatchLike, purpose: str, count: int) -> Floats:
    """`count` numbers in [0, 1) for each row, which depend on its sample and the epoch only (spec §11).

    Repeats of a sample draw different numbers if the batch has their occurrences.
    """
    ids = batch.sample_ids
    on_host = np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)
    occurrences = randomness.occurrences_of(getattr(batch, "extras", {}))
    return randomness.uniforms(batch.seed, batch.epoch, on_host, purpose, count, occurrences)


def betas(uniform: Floats, alpha: float) -> Floats:
    """Map uniform numbers to draws from Beta(alpha, alpha), by its quantile function, accurate to about 1e-5.

    The logit of such a draw has the density cosh(x / 2) ** (-2 alpha), which is smooth for every alpha.
    """
    below, logits = _lower_half(alpha)
    size = np.exp(np.interp(np.minimum(uniform, 1 - uniform), below, logits))  # the odds x / (1 - x), at most 1
    small: Floats = size / (1 + size)
    return np.where(uniform < 0.5, small, 1 - small)


@lru_cache(maxsize=16)
def _lower_half(alpha: float) -> tuple[Floats, Floats]:
    """The distribution of the logit up to its median: cumulative probabilities, and the logits that have them."""
    logits = np.linspace(-_TAIL / alpha - 2, 0, _POINTS)
    density = np.exp(-2 * alpha * (np.logaddexp(logits / 2, -logits / 2) - np.log(2)))
    steps = (density[1:] + density[:-1]) / 2
    below = np.concatenate([np.zeros(1), np.cumsum(steps)])
    return below / (2 * below[-1]), logits
