"""Item texts -> vectors, with a small encoder made here."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from launch import embed
from rec.data.dataset import Dataset
from tests.eval.tiny import write
from tests.small import make, soft_token

WORDS = ["<pad>", "red", "green", "blue", "shoe", "hat"]


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    folder = tmp_path / "encoder"
    split = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<pad>"))
    split.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=split, eos_token="<pad>").save_pretrained(folder)  # no padding token
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(WORDS), **small)).save_pretrained(folder)
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    dataset = write(tmp_path / "data", [[1, 2, 3, 4], [2, 3, 4, 1]], 4)
    table = pq.read_table(dataset.root / "items.parquet")
    texts = pa.array(["red shoe", "red shoe", "blue hat green hat", None])
    pq.write_table(table.append_column("text", texts), dataset.root / "items.parquet")
    return dataset


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["kindling embed", *map(str, words)])
    return embed.main()


def test_items_get_unit_vectors_of_their_texts(dataset: Dataset, encoder: Path, monkeypatch: pytest.MonkeyPatch):
    assert call(monkeypatch, dataset.root, "--encoder", encoder, "--batch", 2) == 0
    features = dataset.feature("text")
    assert features.shape == (5, 16)
    assert np.linalg.norm(features[1:4], axis=1) == pytest.approx(1)
    assert features[1] == pytest.approx(features[2], abs=1e-6)
    assert np.abs(features[1] - features[3]).max() > 1e-3
    assert not features[0].any()
    assert not features[4].any()  # no text


def test_an_item_table_starts_from_a_feature(dataset: Dataset, encoder: Path, monkeypatch: pytest.MonkeyPatch):
    call(monkeypatch, dataset.root, "--encoder", encoder, "--name", "words")
    model = make(soft_token("gpt2", item_init="words", dim=3), users=2, items=4)
    model.start(dataset)
    table = model.tables.item.weight
    assert torch.allclose(table[1], table[2], atol=1e-6)
    assert not torch.allclose(table[1], table[3], atol=1e-3)
    assert not table[0].any()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--encoder", "nowhere"], "--encoder is 'nowhere', which cannot be loaded"),
        (["--encoder", "x", "--column", "colour"], "has no item column 'colour' (there: row, item, text)"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    dataset: Dataset, words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert call(monkeypatch, dataset.root, *words) == 2
    assert says in capsys.readouterr().err
