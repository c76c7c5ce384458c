"""What a recommender eats.

Shape letters, used as suffixes here and in `rec.models`:

    B users in a micro-batch     T positions in time      K negatives of a user     C candidates, items + 1
    D width of the tables        H width of the backbone  N scored positions of a batch, flattened
    S users of a whole step

Users and items are dataset rows; 0 is padding, and the user nobody knows.
"""

from typing import NamedTuple

import torch
from torch import Tensor

PADDING = 0
NOTHING = -1
"""No token: row 0 of a vocabulary is a token like any other."""


class Sequences(NamedTuple):
    """Windows of user histories to learn the next item from. Right-padded with `PADDING`."""

    user_B: Tensor
    """int64 user rows."""
    items_BT: Tensor
    """int64 item rows, the input; T differs from batch to batch."""
    times_BT: Tensor
    """int64 milliseconds since 1970 of the inputs; 0 for padding, and where the log has no times."""
    targets_BT: Tensor
    """int64 item rows, `items_BT` one step ahead; `PADDING` where there is nothing to predict."""
    first_B: Tensor
    """int64 item rows predicted from the user token alone; `PADDING` where there is none."""
    negatives_BK: Tensor
    """int64 item rows that are in none of the user's training interactions; K may be 0.

    Where all windows of a step share their negatives, one row, (1, K), which may hold targets.
    """
    log_q_BK: Tensor
    """float32 log probability of each negative under the distribution it was drawn from."""
    key_B: Tensor
    """int64 random keys, a function of (seed, step, window): all randomness inside a model hangs on them."""
    step_users_S: Tensor
    """int64 rows of the users of the whole step, over all ranks, each once: whose edges no graph may show in it."""
    step_key: Tensor
    """int64 (), a function of (seed, step): the randomness that the windows of a step share."""
    scored_N: Tensor
    """int64 cells of (B, 1 + T), flattened, that are predicted: `first_B`, then `targets_BT`; see `scored_cells`."""

    def scored(self, places: int) -> tuple[Tensor, Tensor]:
        """(N) windows, and (N) places in them, that are predicted; of T places, or of these and the one before them.

        They are found where the batch is made. To find them on a device is to wait for it, to know how many there are.
        """
        width = self.targets_BT.shape[1] + 1
        return self.scored_N // width, self.scored_N % width - (width - places)

    def to(self, device: torch.device) -> "Sequences":
        return Sequences(*(tensor.to(device, non_blocking=True) for tensor in self))

    def pinned(self) -> "Sequences":
        """The same in memory that never moves: a GPU copies from there while the host goes on."""
        return Sequences(*(tensor.pin_memory() for tensor in self))

    def take(self, rows: list[int]) -> "Sequences":
        """Some windows of the batch, in the order given; what belongs to the whole step stays whole."""
        whole = {name for name in self._fields if name.startswith("step_")}
        if len(self.negatives_BK) < len(self.user_B):  # one row for all
            whole |= {"negatives_BK", "log_q_BK"}
        own = {name: tensor[rows] for name, tensor in self._asdict().items() if name not in {*whole, "scored_N"}}
        return self._replace(**own, scored_N=scored_cells(own["first_B"], own["targets_BT"]))


def scored_cells(first_B: Tensor, targets_BT: Tensor) -> Tensor:
    """(N) places that are predicted, as `Sequences` wants them."""
    return torch.cat([first_B[:, None], targets_BT], 1).flatten().nonzero()[:, 0]


class Prompts(NamedTuple):
    """Documents of text, user and item tokens, to predict what follows in them. Right-padded with 0.

    L tokens of a document; a place is text where it has neither a user nor an item.
    """

    user_B: Tensor
    """int64 rows of the users whom the documents are about; 0 where they are about items."""
    token_BL: Tensor
    """int64 rows of the backbone's token table."""
    user_BL: Tensor
    """int64 user rows; 0 where there is no user's token."""
    item_BL: Tensor
    """int64 item rows; 0 where there is no item's token."""
    next_token_BL: Tensor
    """int64 the token that follows and is predicted; `NOTHING` where none is."""
    next_item_BL: Tensor
    """int64 the item that follows and is predicted; 0 where none is."""
    held_BM: Tensor
    """int64 items that are predicted all at once from the last token; M may be 0."""
    last_B: Tensor
    """int64 place of the last token."""
    content_B: Tensor
    """bool: whether the document is content; the others are histories."""
    key_B: Tensor
    """int64 random keys, as those of `Sequences`."""
    step_users_S: Tensor
    """int64 rows of the users of the whole step, as those of `Sequences`."""
    step_key: Tensor
    """int64 (), as that of `Sequences`."""
    step_documents: Tensor
    """int64 () documents of the whole step, over all ranks."""

    def to(self, device: torch.device) -> "Prompts":
        return Prompts(*(tensor.to(device, non_blocking=True) for tensor in self))

    def pinned(self) -> "Prompts":
        """The same in memory that never moves: a GPU copies from there while the host goes on."""
        return Prompts(*(tensor.pin_memory() for tensor in self))

    def take(self, rows: list[int]) -> "Prompts":
        """Some documents of the batch, in the order given; what belongs to the whole step stays whole."""
        mine = {name: tensor[rows] for name, tensor in self._asdict().items() if not name.startswith("step_")}
        return self._replace(**mine)


class Queries(NamedTuple):
    """Histories to recommend from. Right-padded with `PADDING`."""

    user_B: Tensor
    """int64 user rows; 0 is a person never seen in training."""
    history_BT: Tensor
    """int64 item rows, oldest first."""
    times_BT: Tensor
    """int64 milliseconds since 1970 of the history; 0 for padding, and where no times are known."""

    def to(self, device: torch.device) -> "Queries":
        return Queries(*(tensor.to(device, non_blocking=True) for tensor in self))


Batch = Sequences | Prompts
"""What a recommender is trained on."""


def pin_for(gpu: int) -> None:
    """Has this thread pin memory for a GPU. Left to itself, the thread of each rank takes room on the first one."""
    torch.cuda.set_device(gpu)
