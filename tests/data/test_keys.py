"""The numbers on which all randomness of a step hangs."""

import numpy as np

from rec.data.keys import keys, mix, uniform


class TestKeys:
    def test_golden_values_of_the_published_finaliser(self):
        """SplitMix64's first outputs for seed 0 are mix(k * gamma); published in its reference implementation."""
        gamma = 0x9E3779B97F4A7C15
        states = np.array([gamma * k % 2**64 for k in (1, 2, 3)], np.uint64)
        assert [hex(int(value)) for value in mix(states)] == [
            "0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f",
        ]  # fmt: skip

    def test_keys_depend_on_seed_step_and_window_and_nothing_else(self):
        base = keys(3, 7, np.arange(100))
        assert np.array_equal(keys(3, 7, np.arange(50, 100)), base[50:])
        everything = np.concatenate([keys(seed, step, np.arange(100)) for seed in range(5) for step in range(50)])
        assert len(np.unique(everything)) == len(everything)

    def test_numbers_are_uniform_and_independent_over_keys_places_and_salts(self):
        numbers = uniform(keys(0, 0, np.arange(400)), 250, salt=0)
        assert numbers.min() >= 0
        assert numbers.max() < 1
        counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
        assert ((counts - 1000) ** 2 / 1000).sum() < 160  # chi-square with 99 degrees of freedom: p < 1e-4
        limit = 5 / np.sqrt(numbers.size)
        other = uniform(keys(0, 0, np.arange(400)), 250, salt=1)
        assert abs(np.corrcoef(numbers.ravel(), other.ravel())[0, 1]) < limit
        assert abs(np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]) < limit
        assert abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < limit
