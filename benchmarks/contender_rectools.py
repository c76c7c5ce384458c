"""RecTools' SASRec as a contender of `benchmarks.training`; see `benchmarks.contenders`.

It lives in an environment of its own (`make peers`), since it needs an older NumPy, and so imports nothing of ours.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.net_blocks import PreLNTransformerLayers


class Watch(Callback):
    """Takes the time of every step."""

    def __init__(self):
        self.taken = []

    def on_train_batch_end(self, trainer, module, outputs, batch, place):
        self.taken.append((time.perf_counter(), time.process_time(), int((batch["y"] != 0).sum())))


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    out = os.dup(1)
    os.dup2(2, 1)
    stored = np.load(Path(job["folder"]) / "sequences.npz")
    length = stored["lengths"]
    log = pd.DataFrame({
        Columns.User: np.repeat(np.arange(len(length)), length),
        Columns.Item: stored["items"],
        Columns.Weight: 1.0,
        Columns.Datetime: pd.to_datetime(np.arange(len(stored["items"])), unit="s"),
    })  # fmt: skip
    watch = Watch()

    def trainer():
        steps = job["warm"] + job["steps"]
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        return Trainer(max_steps=steps, max_epochs=-1, callbacks=[watch], enable_model_summary=False, **quiet)

    layers = job["backbone"]["config"]["num_hidden_layers"]
    model = SASRecModel(
        n_factors=job["width"],
        n_blocks=layers,
        n_heads=job["backbone"]["config"]["num_attention_heads"],
        session_max_len=job["items"],
        batch_size=job["batch"],
        loss="sampled_softmax",
        n_negatives=job["negatives"],
        dropout_rate=0.0,
        transformer_layers_type=PreLNTransformerLayers,
        get_trainer_func=trainer,
    )
    model.fit(Dataset.construct(log))
    # Lightning trains with a copy of its trainer, and of what watches
    watch = next(one for one in model.fit_trainer.callbacks if isinstance(one, Watch))
    taken = np.array(watch.taken[job["warm"] - 1 :])
    steps = np.column_stack([np.diff(taken[:, :2], axis=0), taken[1:, 2]])
    os.write(out, json.dumps(steps.tolist()).encode())


if __name__ == "__main__":
    main()
