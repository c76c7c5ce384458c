"""The soft-token recommender: the contract over three families of backbone, and what is its own."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rec.config.tree import Backbone, Following, LearnedRelations, LossWeights, PaperRelations, SoftToken
from rec.data.dataset import Dataset
from rec.errors import ConfigError
from rec.models import build
from tests.contract import RecommenderContract
from tests.small import EVERYTHING, SHAPES, batch_of, graph_for, make, padded, queries, soft_token

FAMILIES = ("gpt2", "qwen2", "qwen3")


def _everything(architecture: str) -> SoftToken:
    return soft_token(architecture, loss=EVERYTHING, dropout=0.2, user_dropout=0.3, predict_first=True)


class TestGpt2(RecommenderContract):
    config = _everything("gpt2")
    learns = soft_token("gpt2")


class TestQwen2(RecommenderContract):
    config = _everything("qwen2")
    learns = soft_token("qwen2", dropout=0.1, user_dropout=0.2)


class TestQwen3(RecommenderContract):
    config = _everything("qwen3")
    learns = soft_token("qwen3", loss=LossWeights(cross_entropy=0, sampled_softmax=1.0))


class TestWithoutUserToken(RecommenderContract):
    config = soft_token("qwen3", loss=LossWeights(cross_entropy=1.0, gbce=0.5, l2=0.01), user_token=False, dropout=0.1)
    learns = soft_token("gpt2", user_token=False)


class TestLearnedRelations(RecommenderContract):
    config = replace(_everything("qwen3"), relations=LearnedRelations(per_layer=True))
    learns = soft_token("gpt2", relations=LearnedRelations())


class TestPaperRelations(RecommenderContract):
    config = replace(_everything("gpt2"), relations=PaperRelations())
    learns = soft_token("gpt2", relations=PaperRelations())


@torch.no_grad()
def test_negatives_of_a_step_count_everywhere_but_at_their_own_position_as_target(mixed: Dataset):
    """Term by term against sums over single positions in fp64."""
    model = make(soft_token(loss=replace(EVERYTHING, l2=0, cross_entropy=0), init_std=0.3), mixed.users, mixed.items)
    batch = batch_of(mixed, negatives_of="step", negatives=40)
    parts = model(batch).parts
    queries = model.queries(batch).double()[:, 1:]
    table, users = model.tables.item.weight.double(), model.tables.users(batch.user_B).double()
    negatives, log_q = batch.negatives_BK[0], batch.log_q_BK[0].double()
    expected = {"sampled_softmax": 0.0, "bpr_context": 0.0, "bpr_user": 0.0}
    hits = 0
    for row, place in torch.nonzero(batch.targets_BT).tolist():
        target = batch.targets_BT[row, place]
        others = negatives != target
        hits += int((~others).sum())
        for name, query in (("bpr_context", queries[row, place]), ("bpr_user", users[row])):
            expected[name] += float(-torch.log(torch.sigmoid((table[target] - table[negatives[others]]) @ query)).sum())
        score = table[[target, *negatives[others]]] @ queries[row, place]
        corrected = score[1:] - log_q[others] - math.log(len(negatives))
        expected["sampled_softmax"] += float(torch.cat([score[:1], corrected]).logsumexp(0) - score[0])
    assert hits  # else nothing is shown
    for name, value in expected.items():
        assert parts[name].item() == pytest.approx(value, rel=1e-4), name
    halves = [model(batch.take(rows)) for rows in ([0, 1, 2], [3, 4, 5, 6, 7])]
    assert sum(half.total.item() for half in halves) == pytest.approx(model(batch).total.item(), rel=1e-5)


def test_the_published_run_has_its_published_number_of_parameters():
    """GPT-2, 100,000 users, 389,162 item rows with padding, width 128: all of them trained but the unread token table.

    124,439,808 of GPT-2 + 100,000 x 128 + 389,162 x 128 + three projections of 128 x 768.
    """
    config = SoftToken(backbone=Backbone(architecture="gpt2"))
    with torch.device("meta"):
        model = build(config, users=100_000, items=389_161)
    assert sum(parameter.numel() for parameter in model.parameters()) == 187_347_456
    still = {name: parameter.numel() for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert still == {"backbone.wte.weight": 50_257 * 768}


@pytest.mark.parametrize("architecture", FAMILIES)
def test_first_losses_are_those_of_ignorance(mixed: Dataset, architecture: str):
    """With small tables all scores are nearly 0: ln C for softmax, ln 2 for each comparison."""
    weights = LossWeights(sampled_softmax=1, gbce=1, bpr_context=1, bpr_user=1)
    model = make(soft_token(architecture, loss=weights, init_std=1e-3), mixed.users, mixed.items)
    batch = batch_of(mixed, negatives=12)
    parts, positions = model(batch).parts, int((batch.targets_BT > 0).sum())
    mean = {name: part.item() / positions for name, part in parts.items()}
    own = torch.tensor([len(np.unique(mixed.train_items(int(user)))) for user in batch.user_B])
    # the partition estimated is over the items that are not the user's own, and the target beside them
    expected = ((30 - own + 1).log() * (batch.targets_BT > 0).sum(1)).sum() / positions
    assert mean["cross_entropy"] == pytest.approx(math.log(30), abs=0.01)
    assert mean["sampled_softmax"] == pytest.approx(expected.item(), abs=0.01)
    assert mean["bpr_context"] + mean["bpr_user"] == pytest.approx(2 * 12 * math.log(2), rel=0.002)
    # rate 12 / 29; beta = rate * (0.75 * (1 - 29 / 12) + 29 / 12) = 0.56034...; (beta + 12) ln 2 / 13
    beta = 12 / 29 * (0.75 * (1 - 29 / 12) + 29 / 12)
    assert mean["gbce"] == pytest.approx((beta + 12) * math.log(2) / 13, abs=0.01)


def test_scores_are_the_last_query_against_the_item_table(mixed: Dataset):
    model = make(soft_token(), mixed.users, mixed.items).eval()
    with torch.no_grad():
        scores = model(queries([3, 4], [[4, 5, 6], [7]]))
        query = model.queries(queries([3], [[4, 5, 6]]))[:, -1]
    torch.testing.assert_close(scores[:1], query @ model.tables.item.weight.t())
    assert (scores[:, 0] == 0).all()  # padding is the zero vector


def test_cross_entropy_of_a_batch_equals_a_plain_softmax_over_the_catalogue(mixed: Dataset):
    """The paper's equation, position by position, with padding no class of the softmax."""
    model, batch = make(soft_token(), mixed.users, mixed.items), batch_of(mixed)
    query = model.queries(batch)
    expected = torch.zeros(())
    for row, targets in enumerate(batch.targets_BT):
        for time, target in enumerate(targets.tolist()):
            if target:
                logits = query[row, time + 1] @ model.tables.item.weight[1:].t()  # + 1: after the user token
                expected = expected - torch.log_softmax(logits, 0)[target - 1]
    torch.testing.assert_close(model(batch).total, expected, rtol=1e-5, atol=1e-5)


def test_no_state_sees_what_comes_later(mixed: Dataset):
    for architecture in FAMILIES:
        model = make(soft_token(architecture), mixed.users, mixed.items).eval()
        with torch.no_grad():
            short = model.queries(queries([3], [[4, 5]]))
            long = model.queries(queries([3], [[4, 5, 6, 7]]))
        torch.testing.assert_close(short, long[:, :3], rtol=1e-5, atol=1e-6)


def test_predicting_first_adds_one_position_for_each_history_read_from_its_start(mixed: Dataset):
    weights = LossWeights(cross_entropy=0, bpr_context=1)
    model = make(soft_token(loss=weights, init_std=1e-3, predict_first=True), mixed.users, mixed.items)
    batch = batch_of(mixed, predict_first=True)
    positions = int((batch.targets_BT > 0).sum() + (batch.first_B > 0).sum())
    assert (batch.first_B > 0).any()
    assert model(batch).total.item() == pytest.approx(positions * 4 * math.log(2), rel=1e-3)


def test_the_user_token_alone_predicts_the_first_item(mixed: Dataset):
    """The gradient of a first target reaches the user and no input item."""
    model = make(soft_token(predict_first=True, loss=LossWeights(cross_entropy=0, bpr_context=1)), 4, 9)
    base = batch_of(mixed, predict_first=True)
    batch = base.take([0])._replace(
        user_B=torch.tensor([2]), items_BT=torch.tensor([[1, 2]]), targets_BT=torch.tensor([[0, 0]]),
        first_B=torch.tensor([1]), negatives_BK=torch.tensor([[5, 6]]), log_q_BK=torch.zeros(1, 2),
        scored_N=torch.tensor([0]),
    )  # fmt: skip
    model(batch).total.backward()
    assert model.tables.user.weight.grad[1].abs().sum() > 0
    rows = model.tables.item.weight.grad.abs().sum(1)
    assert [row for row in range(10) if rows[row] > 0] == [1, 5, 6]


def test_without_a_user_token_users_do_not_matter(mixed: Dataset):
    model = make(soft_token(user_token=False), mixed.users, mixed.items).eval()
    assert model.tables.user is None
    with torch.no_grad():
        scores = model(queries([1, 2, 0], [[4, 5]] * 3))
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])


def test_hidden_users_are_read_as_strangers_and_only_while_training(mixed: Dataset):
    config = soft_token(user_dropout=0.5)
    model, batch = make(config, mixed.users, mixed.items), batch_of(mixed, size=16)
    model(batch).total.backward()
    touched = model.tables.user.weight.grad.abs().sum(1) > 0
    present = set((batch.user_B - 1).tolist())
    hidden = [user for user in present if not touched[user]]
    assert 0 < len(hidden) < len(present)
    model.eval()
    with torch.no_grad():
        assert not torch.equal(model(queries([3], [[4, 5]])), model(queries([0], [[4, 5]])))


def test_user_dropout_hides_its_share_of_users(mixed: Dataset):
    model = make(soft_token(user_dropout=0.3), mixed.users, mixed.items)
    seen = []
    model.heads.user_in.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    for step in range(60):
        model(batch_of(mixed, step=step, size=16))
    hidden = (torch.cat(seen) == model.tables.stranger).all(1).float().mean().item()
    assert abs(hidden - 0.3) < 4 * math.sqrt(0.3 * 0.7 / (60 * 16))


def test_a_hidden_user_gives_the_loss_of_a_stranger(mixed: Dataset):
    batch = batch_of(mixed, size=16)
    hidden = make(soft_token(user_dropout=0.999999), mixed.users, mixed.items)
    plain = make(soft_token(), mixed.users, mixed.items)
    torch.testing.assert_close(hidden(batch).total, plain(batch._replace(user_B=batch.user_B * 0)).total)


def test_dropout_belongs_to_the_window_and_not_to_its_batch(mixed: Dataset):
    """Alone, in company, or padded, a window with its key drops the same elements; with another key, others."""
    model, batch = make(soft_token(dropout=0.4), mixed.users, mixed.items), batch_of(mixed)
    alone = batch.take([5])
    one = model(padded(alone, 4)).total.item()
    without = sum(model(batch.take([row])).total.item() for row in range(8) if row != 5)
    assert model(batch).total.item() - without == pytest.approx(one, rel=1e-4)
    assert model(alone._replace(key_B=alone.key_B + 1)).total.item() != pytest.approx(one, rel=1e-3)


def test_l2_is_half_the_mean_squares_of_both_tables_at_any_cut(mixed: Dataset):
    model = make(soft_token(loss=LossWeights(l2=1.0)), mixed.users, mixed.items)
    batch = batch_of(mixed)
    user, item = model.tables.user.weight, model.tables.item.weight
    expected = (user.square().mean() + item.square().mean()).item() / 2
    targets = int((batch.targets_BT > 0).sum())
    for cut in ([range(8)], [range(3), range(3, 8)], [[row] for row in range(8)]):
        total = sum(model(batch.take(list(rows))).parts["l2"].item() for rows in cut)
        assert total / targets == pytest.approx(expected, rel=1e-5)


def test_frozen_parts_are_not_trained(mixed: Dataset):
    model = make(soft_token(freeze=("backbone.*", "tables.user.*")), mixed.users, mixed.items)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(batch_of(mixed)).total.backward()
    optimizer.step()
    changed = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"tables", "heads"}
    assert torch.equal(model.tables.user.weight, before["tables.user.weight"])


def test_a_freeze_pattern_that_fits_nothing_is_an_error_that_names_the_parts():
    with pytest.raises(ConfigError, match=r"'backbon\.\*', which fits no parameter; .* tables\.\*, heads\.\*"):
        make(soft_token(freeze=("backbon.*",)), 3, 5)


def test_freezing_everything_is_an_error():
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        make(soft_token(freeze=("*",)), 3, 5)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_gradient_checkpointing_changes_no_gradient_even_with_dropout(mixed: Dataset, architecture: str):
    batch, results = batch_of(mixed), []
    for recompute in (False, True):
        config = soft_token(architecture, dropout=0.3)
        again = SoftToken(
            backbone=Backbone(
                architecture=architecture, config=config.backbone.config, gradient_checkpointing=recompute
            ),
            dim=16, dropout=0.3,
        )  # fmt: skip
        model = make(again, mixed.users, mixed.items)
        model(batch).total.backward()
        results.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert results[0].keys() == results[1].keys()
    for name, gradient in results[0].items():
        torch.testing.assert_close(gradient, results[1][name], rtol=1e-5, atol=1e-7, msg=name)


def test_scores_are_fp32_under_mixed_precision(mixed: Dataset):
    """Ties count against the model, and bf16 has only 256 numbers between a power of two and the next."""
    model = make(soft_token("gpt2"), users=3, items=20_000).eval()
    query = queries([1], [[5, 9]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model(query)
    assert scores.dtype == torch.float32
    assert len(scores.unique()) > 19_000


def test_users_of_whom_nothing_is_learnt_are_strangers(mixed: Dataset):
    for predict_first in (False, True):
        model = make(soft_token("gpt2", predict_first=predict_first), users=mixed.users, items=mixed.items)
        model.start(mixed)
        learnt = {user for user in range(1, mixed.users + 1) if len(mixed.train_items(user)) > (not predict_first)}
        zero = (model.tables.user.weight == 0).all(1)
        assert {int(row) + 1 for row in torch.nonzero(~zero)} == learnt
        assert zero.any()


def test_a_stranger_gives_finite_gradients_in_a_deep_backbone_without_biases(mixed: Dataset):
    """A token of zeros would stay zero in every layer, where RMSNorm multiplies gradients by 1 / sqrt(eps)."""
    deep = Backbone(architecture="llama", config={**SHAPES["llama"], "num_hidden_layers": 24, "initializer_range": 0.2})
    model = make(SoftToken(backbone=deep, dim=16), mixed.users, mixed.items)
    batch = batch_of(mixed, size=8)
    model(batch._replace(user_B=batch.user_B * 0)).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


@torch.no_grad()
def test_what_followed_the_last_items_in_the_train_graph_is_added_to_the_scores_and_not_to_the_loss(mixed: Dataset):
    plain = soft_token("gpt2")
    added = replace(plain, following=Following(weight=2.0, window=3, decay=0.5))
    graph = graph_for(mixed)
    one, other = make(plain, mixed.users, mixed.items), make(added, mixed.users, mixed.items, graph=graph)
    other.load_state_dict(one.state_dict())
    batch = batch_of(mixed)
    assert other(batch).total.item() == one(batch).total.item()
    history = mixed.train_items(8).tolist()[-5:]
    query = queries([8], [history])
    expected = np.zeros(mixed.items + 1)
    for age, item in enumerate(reversed(history[-3:])):
        expected += 0.5**age * graph.following.strengths(item, np.arange(mixed.items + 1))
    difference = (other.eval()(query) - one.eval()(query))[0].numpy()
    assert expected.any()
    np.testing.assert_allclose(difference, 2 * np.log1p(expected), rtol=1e-4, atol=1e-5)
