"""Ranking of the whole catalogue: the top 100 and the ranks of targets, beside a bare product and FAISS.

    python -m benchmarks.ranking                      # 349,000 items, 2,048 users
    python -m benchmarks.ranking --items 20000 --users 512 --repeats 2

Every block of users is like every other, so a part of the 100,000 users tells the ratio. The bare product is torch.mm
of the same blocks, whose results nobody reads; FAISS is IndexFlatIP, which returns the top 100 and masks nothing.
"""

import argparse
import sys
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import in_turn, peak_memory, ratio, say, tell
from rec.eval.ranking import Pool, best, read
from rec.models.scores import Product

K, WIDTH, SEEN, BLOCK = 100, 128, 80, 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, size in {"items": 349_000, "users": 2_048, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    sizes = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    random = torch.Generator().manual_seed(0)
    item_CD = torch.randn(sizes.items + 1, WIDTH, generator=random).to(device)
    user_UD = torch.randn(sizes.users, WIDTH, generator=random).to(device)
    seen_US = torch.randint(1, sizes.items + 1, (sizes.users, SEEN), generator=random).to(device)
    target_U1 = torch.randint(1, sizes.items + 1, (sizes.users, 1), generator=random).to(device)
    blocks = [slice(start, start + BLOCK) for start in range(0, sizes.users, BLOCK)]

    def listed() -> None:
        for rows in blocks:
            best(Product(user_UD[rows], item_CD), seen_US[rows], K, str)
        finish(device)

    def ranked() -> None:
        for rows in blocks:
            target_BM = target_U1[rows]
            reachable_BM = (target_BM != seen_US[rows]).all(1, keepdim=True)
            read(Product(user_UD[rows], item_CD), Pool(target_BM, reachable_BM, seen_US[rows]))
        finish(device)

    cases = {"top": listed, "ranks": ranked, "bare": partial(bare, user_UD, item_CD, blocks)}
    faiss = searched(user_UD, item_CD) if device.type == "cpu" else None
    if faiss is not None:
        cases["faiss"] = faiss
    about = {"seconds": f"of {sizes.users:,} users", "repeats": sizes.repeats}
    seconds = in_turn(cases, sizes.repeats)
    middle = {name: float(np.median(taken)) for name, taken in seconds.items()}
    said = f"{sizes.items:,} items, d={WIDTH}, {BLOCK:,} users at a time"
    for name, case in {"top": f"top {K} of {said}", "ranks": f"ranks of a target among {said}"}.items():
        tell(
            "full ranking", case, unit="s", ours=middle[name], reference=middle["bare"], against="bare torch.mm",
            ratio=ratio(seconds, name, "bare"), at_most=1.6, **about,
        )  # fmt: skip
    if faiss is not None:
        tell(
            "full ranking", f"top {K} of {said}", unit="s", ours=middle["top"], reference=middle["faiss"],
            against="FAISS IndexFlatIP", ratio=ratio(seconds, "top", "faiss"), at_most=1,
            packages=("faiss-cpu",), **about,
        )  # fmt: skip
    if device.type == "cpu":
        held = max(peak_memory(listed), peak_memory(ranked))
        tell(
            "full ranking", f"memory beyond the tables, {said}", unit="MB", ours=held, reference=1000,
            against="a gigabyte", at_most=1, stable=True,
        )  # fmt: skip


def bare(user_UD: Tensor, item_CD: Tensor, blocks: list[slice]) -> None:
    """The products alone, in the blocks that `read` makes."""
    for rows in blocks:
        scores = Product(user_UD[rows], item_CD)
        for start in scores.starts:
            torch.mm(user_UD[rows], item_CD[start : start + scores.width].t(), out=scores.memory.view(-1, scores.width))
    finish(user_UD.device)


def searched(user_UD: Tensor, item_CD: Tensor) -> partial[object] | None:
    """A search by FAISS, if it is installed."""
    try:
        import faiss
    except ModuleNotFoundError:
        say("faiss-cpu is not installed, and left out: pip install -e '.[bench]'")
        return None
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(WIDTH)
    index.add(item_CD.numpy())
    return partial(index.search, user_UD.numpy(), K)


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
