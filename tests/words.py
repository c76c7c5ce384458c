"""Tokenizers and corpora of texts for tests."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from rec.config.graph_llm import GraphLlm, Template
from rec.data.dataset import Dataset
from tests.data.logs import json_lines, prepared
from tests.small import decoder

VOCABULARY = 256

AMAZON = {
    "review": Template(prompt="{user} wrote of {item}:", main=" {review}"),
    "title": Template(prompt="Title of {item}:", main=" {title}"),
    "same_brand": Template(prompt="Of one brand: {items}:", main="{brand}"),
    "interaction": Template(prompt="{user} has", main="{items}"),
    "predictive": Template(prompt="{user} has {items}, and will:"),
}
"""One template of each use."""
BRANDS = ("Ash", "Birch", "Cedar")


def byte_tokenizer(folder: Path) -> str:
    """A tokenizer whose tokens are the bytes of a text, so that anybody can tell them: its folder."""
    letters = bytes_to_unicode()
    made = Tokenizer(models.BPE(vocab={letters[byte]: byte for byte in range(VOCABULARY)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(folder)
    return str(folder)


@cache
def shared_words() -> str:
    """One for all tests that can do with the same; it is gone when they are over."""
    folder = tempfile.mkdtemp(prefix="words-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return byte_tokenizer(Path(folder))


def graph_llm(words: str, architecture: str = "gpt2", **options: Any) -> GraphLlm:
    small = decoder(architecture)
    config = {**small.config, "vocab_size": VOCABULARY}
    backbone = type(small)(architecture=architecture, config=config)
    return GraphLlm(
        **{"backbone": backbone, "tokenizer": words, "prompts": AMAZON, "max_tokens": 48, **options},
    )


def reviews(folder: Path, users: int = 14, items: int = 24, **options: Any) -> Dataset:
    """Users of 4 to 10 interactions in a random split, with a review of each, titles, and three brands."""
    random = np.random.default_rng(5)
    rows = [
        {"user": f"u{user}", "item": f"i{item}", "timestamp": 1_500_000_000 + int(random.integers(1000)),
         "said": f"u{user} on i{item}"}
        for user in range(users)
        for item in random.permutation(items)[: random.integers(4, 11)]
    ]  # fmt: skip
    about = {"item": [f"i{item}" for item in range(items)], "title": [f"Thing {item}" for item in range(items)],
             "brand": [BRANDS[item // 2] if item < 2 * len(BRANDS) else None for item in range(items)]}  # fmt: skip
    pq.write_table(pa.table(about), folder / "about.parquet")
    log = json_lines(folder, rows)
    options = {"format": "jsonl", "text_column": "said", "keep_text": True, "split": "random", **options}
    return prepared(log, items=folder / "about.parquet", **options)
