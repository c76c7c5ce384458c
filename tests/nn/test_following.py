"""What follows what, beside the score."""

import torch

from rec.models.scores import Added
from rec.nn import following as summands

ITEMS = torch.tensor([[6, 6], [2, 3], [5, 6], [1, 5], [6, 6], [1, 6]], dtype=torch.int32)  # 5 items, 6 fills up
STRENGTH = torch.tensor([[0, 0], [2, 0.5], [1, 0], [4, 0.25], [0, 0], [3, 0]])


def following(*tensors: torch.Tensor, **options: float) -> torch.Tensor:
    """f as a table: the summands in their places."""
    item_BX, strength_BX = summands.following(*tensors, **options)  # type: ignore[arg-type]
    query_N, place_N = torch.nonzero(item_BX < 6, as_tuple=True)
    added = Added.summed(query_N, item_BX[query_N, place_N], strength_BX[query_N, place_N], len(item_BX))
    return added.to(torch.zeros(len(item_BX), 6))


def test_strengths_of_the_last_items_are_added_the_newest_whole_and_older_ones_decayed():
    found = following(ITEMS, STRENGTH, torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0]]), window=2, decay=0.5)
    # 3 leads to 1 (4) and 5 (0.25); 2, one step older, to 5 (1); 1 is outside the window; nothing follows 4
    assert found.tolist() == [[0, 4, 0, 0, 0, 0.25 + 0.5], [0] * 6]


def test_a_window_beyond_the_beginning_reads_nothing_there():
    found = following(ITEMS, STRENGTH, torch.tensor([[3, 1, 0], [0, 0, 0]]), window=9, decay=0.5)
    assert found.tolist() == [[0, 2, 2, 0.5, 0, 0.125], [0] * 6]
