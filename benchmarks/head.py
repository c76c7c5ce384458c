"""The head of a large catalogue: the exact softmax over all items, how it grows, and the sampled one beside it.

    python -m benchmarks.head                             # some minutes, and 7 GB for the naive softmax
    python -m benchmarks.head --items 35000 --repeats 2

All are forward and backward, into the queries and into the table. *Naive* is PyTorch's cross-entropy of all logits. The
*bare products* are the four that the exact head cannot do without (the logits, these again, and one for each gradient),
into memory that is there, in the tiles of the head, and nothing else. Memory is what comes on top of the gradients.
"""

import argparse
import gc
import statistics
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Seconds, device, in_turn, peak_memory, ratio, say, tell
from rec.config.tree import LossWeights
from rec.data.batch import Sequences, scored_cells
from rec.models.terms import terms
from rec.nn.catalogue import catalogue_cross_entropy, tile, tiles
from rec.nn.tables import Tables

WINDOW, CHECKED = 50, 64
"""Positions of a window; positions whose gradient is compared with double precision, where all logits are in memory."""
SPREAD = 0.3
"""Standard deviation of the table; that of the queries is 1, so that of the scores is 3.4 at D = 128."""
EXACT, GROWTH, SAMPLED = "exact softmax", "exact softmax, growth", "sampled softmax"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=349_000)
    parser.add_argument("--windows", type=int, default=32, help=f"of {WINDOW} positions each")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--negatives", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    torch.manual_seed(0)
    about: dict[str, float | str] = {"repeats": asked.repeats, "device": device().type}
    exactness(asked, about)
    speed(asked, about)
    growth(asked, about)
    sampled(asked, about)


def inputs(items: int, positions: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, a table, and targets."""
    query_ND = torch.randn(positions, dim, device=device()).requires_grad_()
    table_CD = torch.empty(items, dim, device=device()).normal_(std=SPREAD).requires_grad_()
    return query_ND, table_CD, torch.randint(items, (positions,), device=device())


def naive(query_ND: Tensor, table_CD: Tensor, target_N: Tensor) -> Tensor:
    return F.cross_entropy(query_ND @ table_CD.t(), target_N, reduction="sum")


def gradients(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor], query_ND: Tensor, table_CD: Tensor, target_N: Tensor
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss(query_ND, table_CD, target_N), (query_ND, table_CD))


def products(query_ND: Tensor, table_CD: Tensor) -> Callable[[], None]:
    """The four products, in the tiles of the head."""
    query_ND, table_CD = query_ND.detach(), table_CD.detach()
    mean_ND, grad_CD, memory = torch.zeros_like(query_ND), torch.zeros_like(table_CD), tile(table_CD)

    def run() -> None:
        for items, places, logits in tiles(table_CD, query_ND, memory):
            torch.mm(table_CD[items], query_ND[places].t(), out=logits)
        for items, places, logits in tiles(table_CD, query_ND, memory):
            torch.mm(table_CD[items], query_ND[places].t(), out=logits)
            mean_ND[places].addmm_(logits.t(), table_CD[items])
            grad_CD[items].addmm_(logits, query_ND[places], beta=0 if places.start == 0 else 1)

    return run


def exactness(asked: argparse.Namespace, about: dict[str, float | str]) -> None:
    query_ND, table_CD, target_N = inputs(asked.items, CHECKED, asked.dim)
    true = gradients(naive, query_ND.double(), table_CD.double(), target_N)
    found = gradients(catalogue_cross_entropy, query_ND, table_CD, target_N)
    tell(
        EXACT,
        f"gradient against double precision, {asked.items:,} items",
        unit="relative error",
        ours=max(float((one - other).norm() / other.norm()) for one, other in zip(found, true, strict=True)),
        reference=1e-5,
        against="what is allowed",
        at_most=1.0,
        stable=True,
        **about,
    )


def speed(asked: argparse.Namespace, about: dict[str, float | str]) -> None:
    positions = asked.windows * WINDOW
    given = inputs(asked.items, positions, asked.dim)
    size = f"{asked.items:,} items, N={positions:,}, d={asked.dim}"
    cases: dict[str, Callable[[], object]] = {
        "naive full logits": lambda: gradients(naive, *given),
        "ours": lambda: gradients(catalogue_cross_entropy, *given),
    }
    held = {name: beyond_gradients(case, given) for name, case in cases.items()}
    tell(
        EXACT,
        f"memory beyond the gradients, {size}",
        unit="MB",
        ours=held["ours"],
        reference=held["naive full logits"],
        against="naive full logits",
        at_most=1 / 20,
        stable=True,
        **about,
    )
    cases["bare products"] = products(*given[:2])
    taken = in_turn(cases, asked.repeats)
    for against, at_most in (("naive full logits", 0.4), ("bare products", 1.3)):
        compare(EXACT, f"forward and backward, {size}", taken, against, at_most, about)


def growth(asked: argparse.Namespace, about: dict[str, float | str]) -> None:
    """Time for each item, and memory, at a tenth of the items, at all, and at ten times as many."""
    positions, sizes = asked.windows * WINDOW, [asked.items // 10, asked.items, asked.items * 10]
    memory, seconds = {}, {}
    for items in sizes:
        say(f"growth: {items:,} items ...")
        given = inputs(items, positions, asked.dim)
        case: Callable[[], object] = lambda given=given: gradients(catalogue_cross_entropy, *given)  # noqa: E731
        memory[items] = beyond_gradients(case, given)
        taken = in_turn({"": case}, 1 if items > asked.items else asked.repeats)
        seconds[items] = statistics.median(taken[""]) / items * 1e6
        del given, case
    for items in (sizes[0], sizes[2]):
        sides = f"{items:,} items against {asked.items:,}"
        tell(
            GROWTH,
            f"time for each item, {sides}",
            unit="μs",
            ours=seconds[items],
            reference=seconds[asked.items],
            against="itself",
            at_most=1.2,
            **about,
        )
    tell(
        GROWTH,
        f"memory beyond the gradients, {sizes[2]:,} items against {sizes[0]:,}",
        unit="MB",
        ours=memory[sizes[2]],
        reference=memory[sizes[0]],
        against="itself",
        at_most=1.5,  # of a few MB, what the allocator does besides is a part
        stable=True,
        **about,
    )


def sampled(asked: argparse.Namespace, about: dict[str, float | str]) -> None:
    """The model's own terms of the loss, for negatives that a step shares, and for those of each window."""
    tables = Tables(0, asked.items, asked.dim, SPREAD).to(device())
    queries_BTD = torch.randn(asked.windows, WINDOW, asked.dim, device=device()).requires_grad_()

    def step(weights: LossWeights, rows: int) -> Callable[[], object]:
        batch = windows(asked.windows, asked.items, rows, asked.negatives).to(device())

        def run() -> object:
            parts = terms(weights, batch, queries_BTD, batch.targets_BT, tables)
            return torch.autograd.grad(sum(parts.values()), (queries_BTD, tables.item.weight))

        return run

    few = LossWeights(cross_entropy=0.0, sampled_softmax=1.0)
    cases = {
        "exact head": step(LossWeights(), 1),
        "of a step": step(few, 1),
        "of a window": step(few, asked.windows),
    }
    taken = in_turn(cases, asked.repeats)
    for name in ("of a step", "of a window"):
        renamed = {"ours": taken[name], "exact head": taken["exact head"]}
        case = f"{asked.negatives} negatives {name}, {asked.items:,} items, N={asked.windows * WINDOW:,}"
        compare(SAMPLED, case, renamed, "exact head", 1 / 20, about)


def windows(count: int, items: int, rows: int, negatives: int) -> Sequences:
    """Windows without padding, with negatives for all (1 row) or for each."""
    numbers = {name: torch.zeros(count, dtype=torch.int64) for name in Sequences._fields}
    drawn = {
        "targets_BT": torch.randint(1, items + 1, (count, WINDOW)),
        "negatives_BK": torch.randint(1, items + 1, (rows, negatives)),
        "log_q_BK": torch.full((rows, negatives), 1 / items).log(),
    }
    scored_N = scored_cells(numbers["first_B"], drawn["targets_BT"])
    return Sequences(**{**numbers, **drawn, "scored_N": scored_N})


def beyond_gradients(case: Callable[[], object], given: tuple[Tensor, Tensor, Tensor]) -> float:
    """Megabytes that a case holds besides the gradients that it makes: at least 8, below which an allocator is noise.

    The first run, which loads code, is left out; of three others the least counts, since what else a process does at
    the same time only adds.
    """
    case()
    gc.collect()
    gradients = sum(one.numel() * one.element_size() for one in given[:2]) / 2**20
    return max(min(peak_memory(case) for _ in range(3)) - gradients, 8.0)


def compare(row: str, case: str, taken: Seconds, against: str, at_most: float, about: dict[str, float | str]) -> None:
    tell(
        row,
        case,
        unit="s",
        ours=statistics.median(taken["ours"]),
        reference=statistics.median(taken[against]),
        against=against,
        ratio=ratio(taken, "ours", against),
        at_most=at_most,
        **about,
    )


if __name__ == "__main__":
    main()
