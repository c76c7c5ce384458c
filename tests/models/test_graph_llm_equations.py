"""The losses and scores of graph_llm against Transformers' own model, document by document, with R spelled out."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from rec.config.graph_llm import GraphLlm
from rec.config.tree import PaperRelations
from rec.data.batch import Prompts
from rec.data.dataset import Dataset
from rec.models.graph_llm import GraphLlm as Model
from tests.models.test_graph_llm import documents
from tests.small import make_for, queries
from tests.words import graph_llm, reviews, shared_words

PAPER = {0: 6 / 11, 1: 1.0, 2: 4 / 11, 3: 3 / 11, 4: 2 / 11, 5: 1 / 11}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return reviews(tmp_path_factory.mktemp("reviews"))


@pytest.fixture(scope="module")
def distance(dataset: Dataset) -> Tensor:
    """(nodes, nodes) hops in the train graph, by Floyd and Warshall; users first; row 0 of each is nobody."""
    users, nodes = dataset.users + 1, dataset.users + dataset.items + 2
    hops = np.full((nodes, nodes), np.inf)
    np.fill_diagonal(hops, 0)
    for user in range(1, users):
        for item in dataset.train_items(user):
            hops[user, users + item] = hops[users + item, user] = 1
    for middle in range(nodes):
        hops = np.minimum(hops, hops[:, middle, None] + hops[None, middle])
    return torch.from_numpy(hops)


class Reference:
    """The same weights in a causal language model of Transformers' own, in fp64, which reads one document at a time."""

    def __init__(self, model: Model, dataset: Dataset, distance: Tensor | None) -> None:
        self.model, self.users, self.distance = model, dataset.users + 1, distance
        self.lm = (
            AutoModelForCausalLM.from_config(copy.deepcopy(model.shape), attn_implementation="eager").double().eval()
        )
        self.lm.base_model.load_state_dict(model.backbone.state_dict())
        self.words = self.lm.base_model.get_input_embeddings().weight
        self.items = model.collaborative.item.weight.double()[1:]

    def states(self, document: dict[str, list[int]], content: bool) -> tuple[Tensor, Tensor]:
        """(L, H) last states and (L, V) logits."""
        tables, rows, nodes = self.model.content if content else self.model.collaborative, [], []
        for token, user, item in zip(document["token"], document["user"], document["item"], strict=True):
            source = tables.user.weight[user - 1] if user else tables.item.weight[item] if item else None
            rows.append(self.words[token] if source is None else source)
            nodes.append(user or (self.users + item if item else 0))
        relation = torch.zeros(len(rows), len(rows), dtype=torch.float64)
        for query, one in enumerate(nodes):
            for key, other in enumerate(nodes):
                if self.distance is not None and one and other:
                    relation[query, key] = PAPER.get(float(self.distance[one, other]), 0.0)
        later = torch.full_like(relation, torch.finfo(torch.float64).min).triu(1)
        said = self.lm(
            inputs_embeds=torch.stack(rows).double()[None], attention_mask=(relation + later)[None, None],
            output_hidden_states=True,
        )  # fmt: skip
        return said.hidden_states[-1][0], said.hidden_states[-1][0] @ self.words.t()


def one_by_one(batch: Prompts) -> list[dict[str, list[int]]]:
    lengths = (batch.last_B + 1).tolist()
    kinds = {"token": batch.token_BL, "user": batch.user_BL, "item": batch.item_BL, "next_token": batch.next_token_BL,
             "next_item": batch.next_item_BL}  # fmt: skip
    return [{name: kind[row, :length].tolist() for name, kind in kinds.items()} for row, length in enumerate(lengths)]


def compared(dataset: Dataset, config: GraphLlm, distance: Tensor | None) -> tuple[Model, Reference]:
    model: Any = make_for(config, dataset)
    with torch.no_grad():  # of a size at which a wrong place or a wrong row is seen
        for name, parameter in model.named_parameters():
            if "norm" not in name and "ln" not in name:
                parameter.mul_(8)
    return model, Reference(model, dataset, distance)


@pytest.mark.parametrize(
    ("architecture", "related", "left_out"),
    [("gpt2", False, "title"), ("gpt2", True, "review"), ("qwen3", True, "title"), ("qwen3", True, "review")],
)
@torch.no_grad()
def test_pretraining_is_the_mean_cross_entropy_of_each_document(
    dataset: Dataset, distance: Tensor, architecture: str, related: bool, left_out: str
):
    """Of reviews or titles, of brands that items share, and of histories."""
    options: dict[str, Any] = {"relations": PaperRelations()} if related else {}
    config = graph_llm(shared_words(), architecture, content_share=0.7, leave_out=(left_out,), **options)
    model, reference = compared(dataset, config, distance if related else None)
    batch = documents(dataset, config, size=46)
    expected = {"content": 0.0, "collaborative": 0.0}
    kinds = set()
    for document, content in zip(one_by_one(batch), batch.content_B.tolist(), strict=True):
        states, logits = reference.states(document, content)
        targets = torch.tensor(document["next_token" if content else "next_item"])
        if content:
            expected["content"] += F.cross_entropy(logits, targets, ignore_index=-1).item()
        else:
            expected["collaborative"] += F.cross_entropy(
                states @ reference.items.t(), targets - 1, ignore_index=-1
            ).item()
        kinds.add((content, sum(item > 0 for item in document["item"]) > 1, any(document["user"])))
    assert len(kinds) >= 3
    parts = model(batch).parts
    for name, value in expected.items():
        assert parts[name].item() == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("related", [False, True])
@torch.no_grad()
def test_the_predictive_stage_is_the_multinomial_likelihood_of_the_held_out_items(
    dataset: Dataset, distance: Tensor, related: bool
):
    options: dict[str, Any] = {"relations": PaperRelations()} if related else {}
    config = graph_llm(shared_words(), stage="predictive", hold_out=0.5, **options)
    model, reference = compared(dataset, config, distance if related else None)
    batch = documents(dataset, config)
    expected, most = 0.0, 0
    for document, held in zip(one_by_one(batch), batch.held_BM.tolist(), strict=True):
        states, _ = reference.states(document, content=False)
        likelihood = F.log_softmax(reference.items @ states[-1], 0)
        targets = [item for item in held if item]
        expected -= sum(likelihood[item - 1].item() for item in targets)
        most = max(most, len(targets))
    assert most > 1
    assert model(batch).parts["multinomial"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("related", [False, True])
@torch.no_grad()
def test_scores_are_the_state_after_the_prompt_with_the_whole_history(
    dataset: Dataset, distance: Tensor, related: bool
):
    """Training histories: R of a person's own items is that of the graph."""
    options: dict[str, Any] = {"relations": PaperRelations()} if related else {}
    config = graph_llm(shared_words(), stage="predictive", **options)
    model, reference = compared(dataset, config, distance if related else None)
    users = [2, 5, 9]
    histories = [dataset.train_items(user).tolist() for user in users]
    scores = model.eval()(queries(users, histories))
    for row, user, history in zip(scores, users, histories, strict=True):
        text = [0, *b" has", *([0] * len(history)), *b", and will:"]
        place = range(len(text))
        items = [history[at - 5] if 5 <= at < 5 + len(history) else 0 for at in place]
        document = {"token": text, "user": [user if not at else 0 for at in place], "item": items}
        states, _ = reference.states(document, content=False)
        torch.testing.assert_close(row[1:].double(), reference.items @ states[-1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_graph_changes_losses_only_through_users_and_items(dataset: Dataset):
    """R is 0 wherever one of the two places is text or padding, and whatever is related is in the document before."""
    config = graph_llm(shared_words(), relations=PaperRelations(), content_share=0.7)
    model = make_for(config, dataset)
    batch = documents(dataset, config, size=24)
    relation = model.relations.relation(batch.user_BL, batch.item_BL)
    node = (batch.user_BL > 0) | (batch.item_BL > 0)
    assert not relation[~(node[:, :, None] & node[:, None])].any()
    own = ~batch.content_B
    values = relation[own][(node[:, :, None] & node[:, None])[own]]
    of_one_person = torch.tensor([6 / 11, 1.0, 4 / 11])
    assert torch.isclose(values[:, None], of_one_person).any(1).all()  # whatever a history holds: nothing to be read
