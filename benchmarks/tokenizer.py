"""Makes a small tokenizer of what the texts of a prepared dataset say: byte pairs, as those of GPT-2, but fewer.

For models from nothing, whose table of 50,257 tokens would be larger than all the rest. Reviews and reasons of held-out
interactions are not read.

    python -m benchmarks.tokenizer data/instruments models/instruments-words
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from rec.data.dataset import Dataset
from rec.data.texts import Texts


def texts(dataset: Dataset) -> Iterator[str]:
    """Every text that a template may name, with the blank that stands before it."""
    positions = np.flatnonzero(dataset.train_positions()).tolist()
    for name in dataset.texts:
        kept = Texts(dataset.root / "texts", name)
        yield from (f" {kept[position]}" for position in positions)
    for name, column in pq.read_table(dataset.root / "items.parquet").to_pydict().items():
        if name not in ("row", "item"):
            yield from (f" {value}" for value in column if value)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", type=Path, help="a prepared dataset")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--size", type=int, default=2048, help="tokens (default 2048)")
    asked = parser.parse_args()
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts(Dataset.open(asked.dataset)), vocab_size=asked.size, min_frequency=2)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer).save_pretrained(asked.out)
    print(f"{tokenizer.get_vocab_size()} tokens in {asked.out}")


if __name__ == "__main__":
    main()
