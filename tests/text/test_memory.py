"""What a step takes does not grow with the corpus: texts lie in mapped files until they are read."""

from pathlib import Path

import numpy as np
import pytest

from rec.config.tree import Data
from rec.data.dataset import Dataset
from rec.data.feed import Feed
from rec.ranks import Ranks
from rec.text.tokenizer import Tokenizer
from rec.text.view import TextView
from tests.memory import peak_of
from tests.ranks import run_ranks
from tests.words import graph_llm, reviews, shared_words

MIB = 1 << 20


def longer(dataset: Dataset, letters: int) -> int:
    """Gives every interaction a review of so many letters; the bytes of all together."""
    folder, count = dataset.root / "texts", len(dataset.item_rows)
    whole = np.lib.format.open_memmap(folder / "review.npy", "w+", np.uint8, (count * letters,))
    whole[:] = np.resize(np.frombuffer(b"a few words ", np.uint8), len(whole))
    whole.flush()
    np.save(folder / "review_offsets.npy", np.arange(count + 1, dtype=np.int64) * letters)
    return len(whole)


def peak(dataset: Dataset, words: Tokenizer) -> int:
    """Bytes that a view of the dataset and three steps of it add at the fullest moment."""
    data = Data(global_batch=4, micro_batch=4, prefetch=0)
    config = graph_llm(shared_words(), leave_out=("title", "same_brand"))

    def work() -> None:
        feed = Feed(TextView(dataset, data, config, words, seed=1), data, seed=1, ranks=Ranks())
        read = [feed.step(step).batches[0] for step in range(3)]
        assert sum(int(batch.content_B.sum()) for batch in read) > 3
        feed.close()

    (found,) = run_ranks(lambda _: peak_of(work), 1)
    return found


def test_a_corpus_a_thousand_times_as_long_takes_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A review is some megabyte in the long one: what is read at a time is one of them, and what is kept a prompt."""
    dataset, words = reviews(tmp_path), Tokenizer.open(shared_words())
    encode = Tokenizer.encode  # what a tokenizer itself takes for a megabyte is not ours
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: encode(self, text[:100]))
    short = peak(dataset, words)
    corpus = longer(dataset, MIB)
    long = peak(Dataset.open(dataset.root), words)
    assert corpus > 50 * MIB
    assert long < short + 16 * MIB
