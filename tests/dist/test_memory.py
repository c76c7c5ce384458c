"""What a rank holds, and what it copies for a save."""

import gc
from pathlib import Path

import pytest
import torch

from launch.strategy import named
from launch.train import made
from rec.config.tree import Run
from rec.data.dataset import Dataset
from rec.ranks import Ranks, join
from rec.train.pieces import copy
from rec.train.strategies import build
from tests.dist.runs import a_random_run
from tests.ranks import run_ranks
from tests.small import a_run, decoder, soft_token

pytest.importorskip("deepspeed.runtime.zero.muon.muon_optimizer", reason="install kindling[deepspeed]")

WORLD = 4


def storage(tensors: list[torch.Tensor]) -> int:
    """Bytes of memory behind some tensors, none counted twice."""
    kept = {}
    for tensor in tensors:
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        kept[local.untyped_storage().data_ptr()] = local.untyped_storage().nbytes()
    return sum(size for address, size in kept.items() if address)
