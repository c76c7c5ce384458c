"""Item texts -> vectors, by a Hugging Face encoder."""

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import AutoModel, AutoTokenizer

from rec.data.dataset import Dataset
from rec.errors import DatasetError
from rec.hub import from_source


def embed_items(
    dataset: Dataset, encoder: str, name: str, column: str, batch: int, progress: Callable[[int], object]
) -> Path:
    """Writes `features/NAME.npy`: (items + 1, width) float32, row 0 and items without text zeros.

    Args:
        dataset: a prepared dataset whose items have texts.
        encoder: hub name or local folder of a model with a tokenizer.
        name: the feature's name.
        column: column of items.parquet that holds the text.
        batch: texts encoded at once.
        progress: told the number of texts done with each batch.
    """
    texts = item_texts(dataset, column)
    remedy = "give a hub name that can be reached or a local folder of an encoder with its tokenizer"
    tokenizer = from_source(AutoTokenizer.from_pretrained, encoder, key="--encoder", remedy=remedy)
    if tokenizer.pad_token is None:  # decoders have none; what fills up is masked anyway
        tokenizer.pad_token = tokenizer.eos_token
    reader = partial(AutoModel.from_pretrained, dtype=torch.float32)
    model = from_source(reader, encoder, key="--encoder", remedy=remedy).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    features = np.zeros((dataset.items + 1, model.config.hidden_size), np.float32)
    filled = [row for row, text in enumerate(texts, 1) if text]
    by_length = sorted(filled, key=lambda row: len(texts[row - 1]))  # little padding
    for start in range(0, len(by_length), batch):
        rows = by_length[start : start + batch]
        features[rows] = mean_states(model, tokenizer([texts[row - 1] for row in rows], **TOKENS))
        progress(len(rows))
    folder = dataset.root / "features"
    folder.mkdir(exist_ok=True)
    beside = folder / f"{name}.tmp.npy"
    np.save(beside, features)
    os.replace(beside, folder / f"{name}.npy")
    about = {"encoder": encoder, "column": column, "items": dataset.items, "with_text": len(filled)}
    (folder / f"{name}.json").write_text(json.dumps(about, indent=1))
    return folder / f"{name}.npy"


TOKENS = {"padding": True, "truncation": True, "max_length": 256, "return_tensors": "pt"}


def item_texts(dataset: Dataset, column: str) -> Sequence[str]:
    """The text of items 1, 2, ...; empty where there is none."""
    table = pq.read_table(dataset.root / "items.parquet")
    if column not in table.column_names:
        raise DatasetError(
            f"{dataset.root} has no item column '{column}' (there: {', '.join(table.column_names)}); "
            "name one, or prepare with --items FILE"
        )
    return [str(text or "") for text in table[column].to_pylist()]


@torch.no_grad()
def mean_states(model: torch.nn.Module, tokens: "dict[str, torch.Tensor]") -> np.ndarray:
    """(B, H) mean of the last states over real tokens, scaled to length 1 (Reimers and Gurevych 2019)."""
    tokens = {key: value.to(next(model.parameters()).device) for key, value in tokens.items()}
    states_BTH = model(**tokens).last_hidden_state
    mask_BT1 = tokens["attention_mask"][..., None].to(states_BTH.dtype)
    mean_BH = (states_BTH * mask_BT1).sum(1) / mask_BT1.sum(1)
    return torch.nn.functional.normalize(mean_BH, dim=1).cpu().numpy()
