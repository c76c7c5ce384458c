"""The recommender that reads texts: the contract in both stages, and what is its own."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.train import execute, made
from rec.config.graph_llm import GraphLlm
from rec.config.tree import Data, PaperRelations, Run
from rec.data.batch import NOTHING, Prompts
from rec.data.dataset import Dataset
from rec.data.feed import Feed
from rec.errors import CheckpointError, ConfigError, DatasetError
from rec.models.saved import load, start_from
from rec.ranks import Ranks
from rec.text.prompts import Writer
from rec.text.tokenizer import Tokenizer
from rec.text.view import TextView
from tests.contract import RecommenderContract
from tests.eval.tiny import write
from tests.small import WIDTH, a_run, make, make_for, queries, saved_tensors, soft_token
from tests.text.test_view import poisoned
from tests.words import AMAZON, graph_llm, reviews, shared_words

CONTENT = ("review", "title", "same_brand")
BARE: dict[str, Any] = {"leave_out": CONTENT, "content_share": 0.0}
"""For datasets without texts."""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """With texts, in place of the contract's own."""
    return reviews(tmp_path_factory.mktemp("reviews"))


def documents(dataset: Dataset, config: GraphLlm, step: int = 0, size: int = 8, **_: int) -> Prompts:
    """The one micro-batch of a step."""
    if not dataset.texts:
        config = dataclasses.replace(config, **BARE)
    data = Data(global_batch=size, micro_batch=size, max_items=6, prefetch=0)
    view = TextView(dataset, data, config, Tokenizer.open(str(config.tokenizer)), seed=1)
    feed = Feed(view, data, seed=1, ranks=Ranks())
    try:
        return feed.step(step).batches[0]
    finally:
        feed.close()


class OfTexts(RecommenderContract):
    def weight(self, part: str) -> float:
        return self.config.lambda_v if part == "regulariser" else 1.0

    def batch(self, dataset: Dataset, **options: int) -> Prompts:
        return documents(dataset, self.config, **options)

    def padded(self, batch: Prompts, more: int) -> Prompts:
        fill = {"token_BL": 0, "user_BL": 0, "item_BL": 0, "next_token_BL": NOTHING, "next_item_BL": 0, "held_BM": 0}
        wide = {name: torch.nn.functional.pad(getattr(batch, name), (0, more), value=fill[name]) for name in fill}
        return batch._replace(**wide)

    def poisoned(self, dataset: Dataset, root: Path) -> Dataset:
        return poisoned(dataset, root)


class TestPretraining(OfTexts):
    config = graph_llm(shared_words(), relations=PaperRelations(), dropout=0.2, user_dropout=0.3, lambda_v=0.5, dim=16)
    learns = graph_llm(shared_words(), **BARE, lambda_v=0.0)
    ranks_first = 0.3  # histories are read in any order: it knows who is near on the ring, not which way people go


class TestPredictive(OfTexts):
    config = graph_llm(shared_words(), "qwen3", stage="predictive", relations=PaperRelations(), dropout=0.1)
    learns = graph_llm(shared_words(), "qwen3", **BARE, stage="predictive", lambda_v=0.0)
    ranks_first = 0.3


class TestAsPublished(OfTexts):
    """What the paper's code does where this project does not, and CLLM4Rec's frozen backbone."""

    config = graph_llm(
        shared_words(), "llama", regulariser="upstream_sum", likelihood="upstream_all", freeze=("backbone.*",),
    )  # fmt: skip
    learns = graph_llm(shared_words(), **BARE, stage="predictive", likelihood="upstream_all", lambda_v=0.0)
    ranks_first = 0.3


def by_hand(kinds: list[list[str]], content: list[bool], documents_of_step: int) -> Prompts:
    """Documents of places such as `u3`, `i2` or `t9`, nothing of which is predicted."""
    width = max(map(len, kinds))

    def rows(kind: str) -> torch.Tensor:
        found = [[int(place[1:]) if place[0] == kind else 0 for place in row] for row in kinds]
        return torch.tensor([row + [0] * (width - len(row)) for row in found])

    none = torch.zeros(len(kinds), width, dtype=torch.int64)
    return Prompts(
        none[:, 0], rows("t"), rows("u"), rows("i"), none + NOTHING, none, none[:, :0],
        torch.tensor([len(row) - 1 for row in kinds]), torch.tensor(content), none[:, 0], none[0, :0], none[0, 0],
        torch.tensor(documents_of_step),
    )  # fmt: skip


@pytest.mark.parametrize(("form", "expected"), [("mean", (1 + 4) / 2 + (16 + 1 + 4) / 3), ("upstream_sum", 2 * 26)])
def test_the_regulariser_is_the_mean_over_a_document_or_as_upstream_the_sum_over_the_step(form: Any, expected: float):
    """Distances of user 1, item 2, user 3, item 1 are 1, 4, 16, 1; of four users and items in text and padding none."""
    config = graph_llm(shared_words(), regulariser=form, lambda_v=0.5)
    model = make(config, users=3, items=2)
    each = 1 / math.sqrt(WIDTH)  # so that the squared length of a row of them is 1
    with torch.no_grad():
        for tables in (model.content, model.collaborative):
            tables.item.weight.fill_(each)
            tables.user.weight.fill_(each)  # a row of zeros would be a stranger's
        model.collaborative.user.weight[0] += 1 * each
        model.collaborative.item.weight[2] += 2 * each
        model.content.user.weight[2] += 4 * each
        model.content.item.weight[1] -= 1 * each
    batch = by_hand([["t7", "u1", "t8", "i2", "t9", "t9"], ["u3", "t5", "i1", "i2"]], [True, False], 2)
    loss = model(batch)
    # content: u1 1, i2 4; history: u3 16, i1 1, i2 4
    assert loss.parts["regulariser"].item() == pytest.approx(expected)
    assert loss.total.item() == pytest.approx(0.5 * expected)
    loss.total.backward()
    moved = {
        name: sorted(set(torch.nonzero(parameter.grad)[:, 0].tolist()))
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert moved == {  # the counterpart of what is read stands still
        "content.user.weight": [0], "content.item.weight": [2],
        "collaborative.user.weight": [2], "collaborative.item.weight": [1, 2],
    }  # fmt: skip
    weight = {"mean": 0.5 / 3, "upstream_sum": 0.5 * 2}[form]
    gradient = model.collaborative.item.weight.grad[1, 0].item()
    assert gradient == pytest.approx(weight * 2 * (0 + 1) * each)  # 2 (z - z')


def test_the_mean_does_not_hang_on_batch_or_padding_and_the_sum_of_upstream_does(mixed: Dataset):
    for form, ratio in (("mean", 1.0), ("upstream_sum", 2.0)):
        model = make_for(graph_llm(shared_words(), regulariser=form), mixed)
        batch = documents(mixed, model.config)
        twice = type(batch)(
            *(
                tensor if name.startswith("step_") else torch.cat([tensor, tensor])
                for name, tensor in batch._asdict().items()
            )
        )._replace(step_documents=2 * batch.step_documents)
        one, two = (model(given).parts["regulariser"].item() for given in (batch, twice))
        per_document = (two / 16) / (one / 8)
        assert per_document == pytest.approx(ratio)


def test_the_two_stages_are_one_model_and_the_second_starts_where_the_first_ended(mixed: Dataset, tmp_path: Path):
    first = graph_llm(shared_words(), relations=PaperRelations())
    run = a_run(mixed, tmp_path, first)
    execute(run)
    second = a_run(mixed, tmp_path, dataclasses.replace(first, stage="predictive"), name="second", init_from=run.folder)
    model = make_for(second.model, mixed, seed=7)
    start_from(run.folder, model, mixed)
    asked = queries([3, 5, 0], [[4, 5, 6], [1, 2], [9]])
    with torch.no_grad():
        assert torch.equal(model.eval()(asked), load(run.folder).model(asked))
    execute(second)
    after = saved_tensors(second, second.train.steps)
    content = {name: value for name, value in model.state_dict().items() if name.startswith("content.")}
    for name, value in content.items():  # the predictive stage reads no content: its vectors stand still
        assert torch.equal(after.get(name, value), value), name
    assert torch.equal(load(second.folder).model.content.item.weight, model.content.item.weight)
    assert not torch.equal(load(second.folder).model.collaborative.item.weight, model.collaborative.item.weight)


def test_a_stage_does_not_start_from_one_with_other_tokens(mixed: Dataset, tmp_path: Path):
    run = a_run(mixed, tmp_path, graph_llm(shared_words()))
    execute(run)
    other = make(graph_llm(shared_words(), dim=8), mixed.users, mixed.items)
    with pytest.raises(CheckpointError, match="give both runs the same backbone, tables and relations"):
        start_from(run.folder, other, mixed)
    file = run.folder / "model/tokenizer/tokenizer.json"
    file.write_text(file.read_text().replace('"Z": 90', '"ZZ": 90'))
    with pytest.raises(ConfigError, match=r"was trained with another tokenizer; set model.tokenizer to that one"):
        start_from(run.folder, make_for(graph_llm(shared_words(), stage="predictive"), mixed), mixed)


def test_cllm4rec_trains_users_and_items_and_leaves_the_language_model_as_it_was(mixed: Dataset, tmp_path: Path):
    config = graph_llm(shared_words(), freeze=("backbone.*",), leave_out=("same_brand",))
    fresh = make_for(config, mixed)
    trained = {name for name, parameter in fresh.named_parameters() if parameter.requires_grad}
    assert trained == {f"{table}.{side}.weight" for table in ("content", "collaborative") for side in ("user", "item")}
    run = a_run(mixed, tmp_path, config)
    execute(run)
    start, end = load(run.folder), load(run.folder).model
    begun = made(run, mixed, Ranks(), fresh=True)
    assert start.run.model == config
    for (name, before), after in zip(begun.named_parameters(), end.parameters(), strict=True):
        assert torch.equal(before, after) == (name not in trained), name


def test_a_history_that_does_not_fit_into_a_prompt_is_refused_with_what_does(tmp_path: Path):
    dataset = write(tmp_path / "d", [[1, 2, 3, 4]], 5)
    model = make_for(graph_llm(shared_words(), **BARE), dataset)
    fixed = len("<> has") + len(", and will:") - 1
    room = Writer(AMAZON["predictive"], model.words, 48).room
    assert room == 48 - fixed
    model.require_room(room)
    with pytest.raises(
        ConfigError, match=f"has room for {room}; set model.max_tokens to 49 or data.max_items to {room}"
    ):
        model.require_room(room + 1)


@pytest.mark.parametrize(
    ("config", "error", "says"),
    [
        (graph_llm("no/tokenizer/here"), ConfigError, r"model\.prompts\.review asks for 'review', which .* has not"),
        (graph_llm("no/tokenizer/here", **BARE, relations=PaperRelations()), DatasetError, "has no graph; make it"),
        (soft_token(item_init="words", relations=PaperRelations()), DatasetError, "has no graph; make it"),
        (soft_token(item_init="words"), DatasetError, "has no feature 'words'"),
    ],
)
def test_what_a_dataset_lacks_is_said_before_anything_is_loaded(
    config: Any, error: type[Exception], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    dataset = write(tmp_path / "d", [[1, 2, 3, 4]], 5)
    for name in ("rec.train.strategies.build", "rec.models.graph_llm.tokenizer", "rec.models.build"):
        monkeypatch.setattr(name, lambda *_, name=name, **__: pytest.fail(f"{name} was called"))
    run = Run(name="run", dataset=dataset.root, out=tmp_path, model=config)
    with pytest.raises(error, match=says):
        execute(run)
