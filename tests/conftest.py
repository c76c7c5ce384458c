"""What every test shares: tiny corpora, one thread, and a world that no test leaves behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from rec.data.dataset import Dataset
from tests.eval.tiny import write
from tests.small import forget_the_world

REPOSITORY = Path(__file__).resolve().parent.parent
torch.set_num_threads(1)
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test is the only process of its world, whatever a test before it told Accelerate or the environment."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # what a launcher would set; forked ranks meet over a file instead
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    forget_the_world()
    yield
    forget_the_world()


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Users of 0, 1, 2, 3, 4, 7, 13, 29 interactions and a few more, in a catalogue of 30 items; no structure."""
    random = np.random.default_rng(7)
    lengths = [0, 1, 2, 3, 4, 7, 13, 29, 5, 6, 8, 9, 10, 11, 12, 3]
    sequences = [random.permutation(30)[:length] + 1 for length in lengths]
    return write(tmp_path_factory.mktemp("corpora") / "mixed", sequences, 30)


@pytest.fixture(scope="session")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """48 users who walk along a ring of 24 items from a place of their own: what follows an item is always the same."""
    random = np.random.default_rng(3)
    ring = random.permutation(24) + 1
    starts, lengths = random.integers(24, size=48), random.integers(5, 12, size=48)
    walks = [ring[(start + np.arange(length)) % 24] for start, length in zip(starts, lengths, strict=True)]
    return write(tmp_path_factory.mktemp("corpora") / "rings", walks, 24)


@pytest.fixture
def real_data() -> Path:
    """The folder of the real data sets, named by KINDLING_DATA; the test is skipped where there is none."""
    folder = Path(os.environ.get("KINDLING_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data sets here; name their folder in KINDLING_DATA")
    return folder
