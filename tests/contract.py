"""What every recommender promises, whatever it is made of. Subclass, name the config, and inherit the tests."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from launch.train import execute
from rec.config.load import from_values, to_values
from rec.config.tree import Data, Eval, Model, Optim, Train
from rec.data.dataset import Dataset, ragged
from rec.models.base import Loss, Recommender
from tests.eval.tiny import leave_one_out, write
from tests.small import a_run, batch_of, make_for, padded, queries

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


class RecommenderContract:
    """Options: `config` with every part of the model switched on; `learns`, one that is quick to train."""

    config: ClassVar[Model]
    learns: ClassVar[Model]
    ranks_first: ClassVar[float] = 0.95
    """NDCG@10 of `learns` on a log where what follows is fixed."""

    def model(self, dataset: Dataset) -> Recommender:
        return make_for(self.config, dataset)

    def weight(self, part: str) -> float:
        """What a part of the loss counts."""
        return getattr(self.config.loss, part)

    def batch(self, dataset: Dataset, **options: int):
        return batch_of(dataset, predict_first=self.config.predict_first, **options)

    def padded(self, batch: Any, more: int) -> Any:
        """The same batch with more padding."""
        return padded(batch, more)

    def poisoned(self, dataset: Dataset, root: Path) -> Dataset:
        """The dataset with other interactions in all that is held out."""
        return _poison(dataset, root)

    def test_the_configuration_survives_being_written_and_read(self, mixed: Dataset, tmp_path: Path):
        run = a_run(mixed, tmp_path, self.config, data=Data(negatives=4))
        assert from_values(json.loads(json.dumps(to_values(run)))) == run

    def test_the_smallest_dataset_will_do(self, tmp_path: Path):
        dataset = write(tmp_path / "smallest", [[1, 2, 3, 4]], 5)
        loss = self.model(dataset)(self.batch(dataset, size=1, negatives=2))
        assert torch.isfinite(loss.total)

    def test_every_trainable_tensor_gets_a_finite_gradient_that_is_not_zero(self, mixed: Dataset):
        model = self.model(mixed)
        model(self.batch(mixed)).total.backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"{name} is not used: data-parallel training would stop"
                assert torch.isfinite(parameter.grad).all(), name
                assert parameter.grad.abs().sum() > 0, name

    def test_the_total_is_the_weighted_sum_of_its_parts(self, mixed: Dataset):
        loss = self.model(mixed)(self.batch(mixed))
        weighted = sum(self.weight(name) * value.item() for name, value in loss.parts.items())
        assert loss.total.item() == pytest.approx(weighted, rel=1e-5)
        assert not any(part.requires_grad for part in loss.parts.values())

    def test_more_padding_changes_neither_loss_nor_scores(self, mixed: Dataset):
        model, batch = self.model(mixed), self.batch(mixed)
        _same(model(batch), model(self.padded(batch, 5)))
        model.eval()
        with torch.no_grad():
            narrow = model(queries([3, 0], [[4, 5, 6], [1]]))
            wide = model(queries([3, 0], [[4, 5, 6], [1]], width=9))
        torch.testing.assert_close(narrow, wide, **CLOSE)

    @pytest.mark.parametrize("cut", [(8,), (4, 4), (1, 2, 5), (1,) * 8])
    def test_a_batch_cut_anywhere_has_the_same_loss_and_gradients(self, mixed: Dataset, cut: Sequence[int]):
        batch = self.batch(mixed)
        whole, pieces = self.model(mixed), self.model(mixed)
        total = whole(batch)
        total.total.backward()
        parts, start = [], 0
        for size in cut:
            part = pieces(batch.take(list(range(start, start + size))))
            part.total.backward()
            parts.append(part)
            start += size
        assert sum(part.total.item() for part in parts) == pytest.approx(total.total.item(), rel=1e-5)
        for (name, one), other in zip(whole.named_parameters(), pieces.parameters(), strict=True):
            if one.requires_grad:
                torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4, msg=name)

    def test_the_order_of_a_batch_changes_nothing(self, mixed: Dataset):
        model, batch = self.model(mixed), self.batch(mixed)
        _same(model(batch), model(batch.take([5, 2, 7, 0, 1, 6, 3, 4])))

    def test_the_scores_of_a_query_do_not_hang_on_its_neighbours(self, mixed: Dataset):
        model = self.model(mixed).eval()
        with torch.no_grad():
            together = model(queries([3, 5, 0], [[4, 5, 6], [1, 2, 3, 4, 5, 6], []]))
            alone = torch.cat([model(queries([u], [h])) for u, h in [(3, [4, 5, 6]), (5, [1, 2, 3, 4, 5, 6]), (0, [])]])
        torch.testing.assert_close(together, alone, **CLOSE)

    def test_strangers_newcomers_and_empty_histories_have_finite_scores(self, mixed: Dataset):
        model = self.model(mixed).eval()
        with torch.no_grad():
            scores = model(queries([0, mixed.users + 5, 2, 0], [[1, 2], [3], [], []]))
        assert scores.shape == (4, mixed.items + 1)
        assert torch.isfinite(scores).all()

    def test_nothing_held_out_reaches_the_loss(self, mixed: Dataset, tmp_path: Path):
        poisoned = self.poisoned(mixed, tmp_path / "poisoned")
        for step in range(3):
            clean, other = self.batch(mixed, step=step), self.batch(poisoned, step=step)
            for one, another in zip(clean, other, strict=True):
                assert torch.equal(one, another)

    def test_saved_weights_score_bit_for_bit_the_same(self, mixed: Dataset):
        model, other = self.model(mixed).eval(), make_for(self.config, mixed, seed=99).eval()
        query = queries([3], [[4, 5, 6]])
        with torch.no_grad():
            assert not torch.equal(model(query), other(query))
            other.load_state_dict(model.state_dict())
            assert torch.equal(model(query), other(query))

    def test_it_learns_what_can_be_learnt(self, rings: Dataset, tmp_path: Path):
        """What follows is fixed on the ring: a working optimizer ranks it first for everybody, a broken one cannot."""
        run = a_run(
            rings, tmp_path, self.learns,
            data=Data(global_batch=48, micro_batch=24, max_items=12, negatives=8), optim=Optim(lr=5e-3, warmup=10),
            train=Train(steps=60, trackers=()), eval=Eval(select="ndcg@10"),
        )  # fmt: skip
        assert execute(run) == 0
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        assert next(line["valid/ndcg@10"] for line in lines if "valid/ndcg@10" in line) > self.ranks_first


def _same(one: Loss, other: Loss) -> None:
    assert one.parts.keys() == other.parts.keys()
    torch.testing.assert_close(one.total, other.total, **CLOSE)
    for name, part in one.parts.items():
        torch.testing.assert_close(part, other.parts[name], **CLOSE)


def _poison(dataset: Dataset, root: Path) -> Dataset:
    """The dataset with every held-out interaction replaced by item 1."""
    sequences = []
    for user in range(1, dataset.users + 1):
        row = np.array(dataset.item_rows[dataset.offsets[user] : dataset.offsets[user + 1]])
        row[leave_one_out(len(row))[0] :] = 1
        sequences.append(row)
    assert not np.array_equal(ragged(sequences)[0], dataset.item_rows)
    return write(root, sequences, dataset.items)
