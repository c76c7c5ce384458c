"""Dataset rows -> documents: what a recommender that reads texts sees of a dataset. A pure function of the step.

Texts are read and tokenised for each batch, in the feed's thread; nothing of a corpus is kept but where its texts lie.
"""

from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from rec.config.graph_llm import CONTENT, GraphLlm
from rec.config.tree import Data
from rec.data.batch import NOTHING, Prompts
from rec.data.dataset import Dataset, FloatArray, IntArray
from rec.data.keys import keys, uniform
from rec.data.views import ALL
from rec.errors import ConfigError
from rec.text.corpus import source
from rec.text.prompts import Document, Writer
from rec.text.tokenizer import Tokenizer

ORDER, HELD = 1, 2
"""Salts of the random numbers that shuffle a list of items, and choose those to hold out."""


class Documents(NamedTuple):
    """Documents of an epoch or a step."""

    number: IntArray  # (W) int64, of all documents there are
    user: IntArray  # (W) int64 user rows; 0 where a document is about items
    template: IntArray  # (W) int64 which of the view's templates
    document: IntArray  # (W) int64 number among those of the template
    length: IntArray  # (W) int64 tokens, as far as is known before they are tokenised
    alike: FloatArray  # (W) float64 place in the lengths of its kind: what documents of a step have in common

    @property
    def targets(self) -> int:
        """Documents, each of which counts once, however long."""
        return len(self.number)

    def take(self, rows: IntArray | slice) -> Self:
        return self._replace(**{name: column[rows] for name, column in self._asdict().items()})


class TextView:
    """Documents of the templates of a run.

    An epoch of pre-training reads the history of each user once, and between them contents, in turn and in a random
    order, as many as `content_share` says. One of the predictive stage reads each user once.

    Args:
        dataset: what is trained on.
        data: sizes; of `max_items`, how many items a list has at most.
        config: the model.
        words: the model's tokenizer.
        seed: of the run.

    Raises:
        ConfigError: if a template has no documents, or none that fit.
    """

    def __init__(self, dataset: Dataset, data: Data, config: GraphLlm, words: Tokenizer, *, seed: int) -> None:
        self.dataset, self.data, self.config, self.seed = dataset, data, config, seed
        self.writers = [Writer(template, words, config.max_tokens) for template in config.trained_on.values()]
        self.sources = [source(dataset, name, template) for name, template in config.trained_on.items()]
        sizes = [len(found.user_D) for found in self.sources]
        numbers = np.arange(sum(sizes))
        template = np.repeat(np.arange(len(sizes)), sizes)
        length = np.minimum(np.concatenate([found.length_D for found in self.sources]), config.max_tokens)
        self.is_content = np.array([writer.template.use in CONTENT for writer in self.writers])
        """(templates) whether each is of content."""
        content = self.is_content[template]
        self.all = Documents(
            number=numbers,
            user=np.concatenate([found.user_D for found in self.sources]),
            template=template,
            document=numbers - (np.cumsum(sizes, dtype=np.int64) - sizes)[template],
            length=length,
            alike=np.where(content, _places(length, content), _places(length, ~content)),
        )
        self.contents, self.histories = np.flatnonzero(content), np.flatnonzero(~content)
        share = config.content_share / (1 - config.content_share)
        self.quota = round(share * len(self.histories)) if len(self.contents) else 0
        """Contents of an epoch."""
        if not len(self.histories):
            raise ConfigError(f"{dataset.root} has no user with enough training interactions for model.stage")

    def epoch(self, epoch: int) -> Documents:
        return self.all.take(np.concatenate([self.histories, *self._contents(epoch * self.quota, self.quota)]))

    def _contents(self, place: int, count: int) -> list[IntArray]:
        """So many contents from a place on: all of them in a random order, then all in another, and so on."""
        parts = []
        while count:
            turn, within = divmod(place, len(self.contents))
            order = np.random.default_rng((self.seed, turn)).permutation(self.contents)
            parts.append(order[within : within + count])
            place, count = place + len(parts[-1]), count - len(parts[-1])
        return parts

    def batch(self, step: int, windows: Documents, together: Documents) -> Prompts:
        key_B = keys(self.seed, step, windows.number)
        rows = zip(key_B, windows.user.tolist(), windows.template.tolist(), windows.document.tolist(), strict=True)
        documents, held = zip(*(self._write(*row) for row in rows), strict=True)
        width = max(len(document.token_L) for document in documents)
        token, user, item = (_padded([document[row] for document in documents], width) for row in range(3))
        main = np.array([document.main for document in documents])
        length = np.array([len(document.token_L) for document in documents])
        place = np.arange(1, width + 1)
        asked = (place >= main[:, None]) & (place < length[:, None])
        following = [np.pad(row[:, 1:], ((0, 0), (0, 1))) for row in (token, item)]
        content = self.is_content[windows.template]
        return Prompts(
            user_B=_tensor(windows.user),
            token_BL=_tensor(token),
            user_BL=_tensor(user),
            item_BL=_tensor(item),
            next_token_BL=_tensor(np.where(asked & content[:, None], following[0], NOTHING)),
            next_item_BL=_tensor(np.where(asked, following[1], 0)),
            held_BM=_tensor(_padded(list(held), max(map(len, held)))),
            last_B=_tensor(length - 1),
            content_B=torch.from_numpy(content),
            key_B=_tensor(key_B.view(np.int64)),
            step_users_S=_tensor(np.setdiff1d(together.user, [0])),
            step_key=_tensor(keys(self.seed, step, ALL).view(np.int64))[0],
            step_documents=torch.tensor(len(together.number)),
        )

    def _write(self, key: np.uint64, user: int, template: int, number: int) -> tuple[Document, IntArray]:
        """A document, and the items that are held out of it."""
        writer, found = self.writers[template], self.sources[template]
        items: IntArray = found.items(number)
        held: IntArray = np.empty(0, np.int64)
        one = np.array([key])
        if len(items) > 1:
            items = items[np.argsort(uniform(one, len(items), salt=ORDER)[0], kind="stable")]
        if writer.template.use == "predictive":
            least = max(1, int(self.config.hold_out * len(items)))
            drawn = np.argsort(uniform(one, len(items), salt=HELD)[0], kind="stable")
            held, items = items[drawn[:least]], items[np.sort(drawn[least:])]
        items = items[max(0, len(items) - self.data.max_items) :]
        if self.config.likelihood == "upstream_all":
            held = np.concatenate([held, items])
        return writer.write(user, items.tolist(), found.text(number)), held


def _places(lengths: IntArray, some: IntArray) -> FloatArray:
    """(W) float64: the share of those that are marked that are shorter; ties in stored order."""
    places = np.zeros(len(lengths))
    order = np.flatnonzero(some)[np.argsort(lengths[some], kind="stable")]
    places[order] = np.arange(len(order)) / max(1, len(order))
    return places


def _padded(rows: list[IntArray], width: int) -> IntArray:
    whole = np.zeros((len(rows), width), np.int64)
    for row, values in zip(whole, rows, strict=True):
        row[: len(values)] = values
    return whole


def _tensor(values: IntArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
