"""Apple's cut cross-entropy (arXiv 2411.09009), the same loss in one kernel: the only door to it.

It is a Triton kernel for queries in half precision on a CUDA device, and an extra of the installation ("fused").
"""

import functools
import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor

DEVICES = ("cuda",)
HALVES = (torch.bfloat16, torch.float16)


def takes(query_ND: Tensor) -> bool:
    """Whether these queries can go there: some, in half precision, on a device that it runs on, and it is installed."""
    fits = query_ND.device.type in DEVICES and query_ND.dtype in HALVES and len(query_ND) > 0
    return fits and installed()


@functools.cache
def installed() -> bool:
    return importlib.util.find_spec("cut_cross_entropy") is not None


def fused_cross_entropy(query_ND: Tensor, table_CD: Tensor, target_N: Tensor, weight_N: Tensor) -> Tensor:
    """-sum_n w_n log softmax(E q_n)[target_n], fp32; products in the queries' type, sums in fp32.

    Nothing is filtered: by default the kernel leaves out tiles in which every probability is small, which in a large
    catalogue, where an item has one of three millionths, would be all of them.
    """
    package: Any = importlib.import_module("cut_cross_entropy")
    loss_N: Tensor = package.linear_cross_entropy(query_ND, table_CD, target_N, reduction="none", filter_eps=None)
    return (weight_N * loss_N.float()).sum()
