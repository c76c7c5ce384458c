"""Randomness without state: a key is a hash of (seed, step, window), and every random number a hash of a key.

No generator is carried along, so a run that is resumed, or moved to another number of ranks, draws the same numbers.
"""

import numpy as np
import numpy.typing as npt

from rec.data.dataset import FloatArray, IntArray

Keys = npt.NDArray[np.uint64]


def mix(values: Keys) -> Keys:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): flips about half of the bits for any change of input."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def keys(seed: int, step: int, windows: IntArray) -> Keys:
    """One key for each window of a step."""
    stream = mix(mix(np.array([seed], np.uint64)) ^ np.uint64(step))
    return mix(stream ^ windows.astype(np.uint64))


def uniform(key: Keys, count: int, *, salt: int) -> FloatArray:
    """(len(key), count) float64 numbers in [0, 1), independent for different keys and salts."""
    place = np.arange(count, dtype=np.uint64) + np.uint64(salt << 32)
    return (mix(mix(key)[:, None] ^ mix(place)) >> np.uint64(11)) * 2.0**-53
