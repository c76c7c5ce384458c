"""LightGCN propagation against the bare sparse products that it is made of, in one run.

`python -m benchmarks.propagation [--threads 2]`: forward and backward of 3 layers over 250,000 users and 200,000 items,
8 million edges (16 million directed), width 64. The reference multiplies the same matrices with vectors as often: 12
products, without scaling, hiding users, or adding layers. Each repetition measures everything once, in turn.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch

from rec.nn.mean_over_layers import Edges
from rec.nn.propagate import Propagation

USERS, ITEMS, EDGES, WIDTH, LAYERS, HIDDEN = 250_000, 200_000, 8_000_000, 64, 3, 128
FAN_OUT, ASKED = 10, 2000


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--threads", type=int, default=2)
    given.add_argument("--repetitions", type=int, default=5)
    given.add_argument("--parts", type=int, default=1, help="divides users, items and edges")
    given.add_argument("--cases", nargs="+", default=[""], help="words of those to measure, beside the reference")
    asked = given.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    by_user = graph(asked.parts)
    users, items = by_user.shape
    by_item = by_user.T.tocsr()
    user_UD = torch.randn(users, WIDTH, requires_grad=True)
    item_ID = torch.randn(items, WIDTH, requires_grad=True)
    hidden_S = torch.randperm(users)[:HIDDEN]
    plain, dropping = (
        Propagation(edges(by_user), edges(by_item), layers=LAYERS, dropout=dropout) for dropout in (0.0, 0.1)
    )
    into_users, into_items = (torch_csr(matrix) for matrix in (by_user, by_item))

    def bare() -> None:
        with torch.no_grad():
            for _ in range(2 * LAYERS):
                into_users @ item_ID
                into_items @ user_UD

    def autograd() -> None:
        """What torch makes of the same by itself: it transposes the matrix in every backward pass."""
        users, items = [user_UD], [item_ID]
        for _ in range(LAYERS):
            new = torch.sparse.mm(into_users, items[-1]), torch.sparse.mm(into_items, users[-1])
            users.append(new[0])
            items.append(new[1])
        backward(torch.stack(users).mean(0), torch.stack(items).mean(0))

    def ours(block: Propagation, *hidden: torch.Tensor, users: bool = True) -> Callable[[], None]:
        return lambda: backward(*block(user_UD, item_ID, *hidden, want_users=users))

    key = torch.tensor(1)
    drawing = Propagation(edges(by_user), edges(by_item), layers=LAYERS, fan_out=FAN_OUT)
    asked_N = torch.randperm(items)[:ASKED]

    def drawn() -> None:
        backward(*drawing(user_UD, item_ID, hidden_S, key, want_users=False, item_N=asked_N))

    cases = {
        "reference: 12 bare products": bare,
        "forward and backward": ours(plain),
        "the same with 128 users hidden": ours(plain, hidden_S),
        "the same with edge dropout as well": ours(dropping, hidden_S, key),
        "the items' vectors only, with 128 users hidden": ours(plain, hidden_S, users=False),
        f"the vectors of {ASKED:,} items from {FAN_OUT} drawn neighbours of each node": drawn,
        "left to autograd, without scaling": autograd,
    }
    cases = {name: case for name, case in cases.items() if any(word in name for word in ("reference", *asked.cases))}
    clock = time.process_time if asked.threads == 1 else time.perf_counter  # others may use the cores
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(asked.repetitions + 1):
        for name, case in cases.items():
            begun = clock()
            case()
            seconds[name].append(clock() - begun)
            user_UD.grad = item_ID.grad = None
    reference = next(iter(seconds.values()))
    print(f"{by_user.nnz:,} edges, {asked.threads} threads, a load of {os.getloadavg()[0]:.1f}")
    print(f"medians of {asked.repetitions}: seconds, ratio to the reference of the same repetition")
    for name, taken in seconds.items():
        ratios = [mine / bare for mine, bare in zip(taken[1:], reference[1:], strict=True)]  # the first warms up
        print(f"| {name} | {statistics.median(taken[1:]):.2f} | {statistics.median(ratios):.2f} |")


def graph(parts: int) -> sp.csr_array:
    """Users x items: uniform users, items with a long tail, each edge once."""
    random = np.random.default_rng(0)
    size, most, wanted = USERS // parts, ITEMS // parts, EDGES // parts
    users = random.integers(size, size=wanted + wanted // 500)
    items = (most * random.random(len(users)) ** 1.5).astype(np.int64)
    edges = np.unique(users * most + items)
    edges = random.permutation(edges)[:wanted]
    return sp.csr_array((np.ones(len(edges), np.float32), np.divmod(edges, most)), shape=(size, most))


def edges(matrix: sp.csr_array) -> Edges:
    return Edges(torch.from_numpy(matrix.indptr.astype(np.int32)), torch.from_numpy(matrix.indices.astype(np.int32)))


def torch_csr(matrix: sp.csr_array) -> torch.Tensor:
    return torch.sparse_csr_tensor(*edges(matrix), torch.from_numpy(matrix.data), matrix.shape, check_invariants=False)


def backward(*means: torch.Tensor) -> None:
    wanted = [mean for mean in means if len(mean)]
    torch.autograd.backward(wanted, [torch.ones_like(mean) for mean in wanted])


if __name__ == "__main__":
    main()
