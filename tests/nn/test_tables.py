"""User and item tables."""

import pytest
import torch

from rec.nn.tables import Heads, Tables, rows_of


def _tables(users: int = 4, items: int = 9, dim: int = 6) -> Tables:
    torch.manual_seed(0)
    return Tables(users, items, dim, 0.02)


def test_nobody_newcomers_and_the_unlearnt_are_the_constant_stranger_without_gradient():
    tables = _tables()
    with torch.no_grad():
        tables.user.weight[1] = 0
    vectors = tables.users(torch.tensor([0, 1, 4, 5, 1000, 2]))
    assert (vectors[[0, 3, 4, 5]] == tables.stranger).all()
    assert tables.stranger > 0
    assert torch.equal(vectors[1], tables.user.weight[0])
    assert torch.equal(vectors[2], tables.user.weight[3])
    vectors.sum().backward()
    assert tables.user.weight.grad.any(1).tolist() == [True, False, False, True]


def test_padding_is_zero_and_gets_no_gradient():
    tables = _tables()
    vectors = tables.items(torch.tensor([[0, 3], [9, 0]]))
    assert not vectors[0, 0].any()
    (vectors.square().sum() + vectors.sum()).backward()
    assert tables.item.weight.grad.any(1).nonzero().flatten().tolist() == [3, 9]


def test_tables_start_at_their_standard_deviation():
    tables = Tables(500, 500, 64, 0.05)
    for table in (tables.user.weight, tables.item.weight[1:]):
        assert table.std().item() == pytest.approx(0.05, rel=0.03)


def test_items_start_at_the_principal_components_of_their_features():
    """Features along one line, in 3 dimensions: the first column orders the items on it, at the table's own scale."""
    place = torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 7, 8])
    features = torch.cat([torch.zeros(1, 3), place[:, None] * torch.tensor([1.0, 2.0, -2.0])])
    features[1:] += torch.randn(9, 3, generator=torch.Generator().manual_seed(1)) * 1e-3
    tables = _tables()
    rest = tables.item.weight[:, 3:].detach().clone()
    tables.start_items_from(features, 0.02)
    first = tables.item.weight[1:, 0].detach()
    line = (place - place.mean()) / place.std()
    assert abs(torch.corrcoef(torch.stack([first, line]))[0, 1].item()) > 0.9999
    assert tables.item.weight[1:, :3].std().item() == pytest.approx(0.02, rel=1e-4)
    assert torch.equal(tables.item.weight[:, 3:], rest)  # fewer directions than columns
    assert not tables.item.weight[0].any()


def test_principal_components_keep_the_angles_of_features_that_fit():
    features = torch.randn(10, 6, generator=torch.Generator().manual_seed(2))
    features[0] = 0
    tables = _tables()
    tables.start_items_from(features, 0.02)
    centred = features[1:] - features[1:].mean(0)
    ours = tables.item.weight[1:].detach()
    torch.testing.assert_close(torch.corrcoef(ours @ ours.t()), torch.corrcoef(centred @ centred.t()))


def test_without_users_there_is_no_user_table_and_no_user_head():
    assert _tables(users=0).user is None
    assert Heads(4, 8, user=False).user_in is None


def test_heads_are_without_bias_and_start_as_one_orthogonal_map():
    """What goes in and comes straight out is the vector itself, GAIN times longer."""
    heads = Heads(16, 48, user=True)
    assert all(name.endswith("weight") for name, _ in heads.named_parameters())
    vectors = torch.randn(5, 16)
    torch.testing.assert_close(heads.query(heads.item_in(vectors)), Heads.GAIN * vectors, rtol=1e-4, atol=1e-4)
    for head in (heads.item_in, heads.user_in):
        torch.testing.assert_close(head(vectors).norm(dim=1), Heads.GAIN * vectors.norm(dim=1))
    assert not torch.equal(heads.item_in.weight, heads.user_in.weight)
    before = heads.query.weight.clone()
    with torch.no_grad():
        heads.item_in.weight.add_(1)
    assert torch.equal(heads.query.weight, before)  # equal at the start, and not tied


def test_rows_of_one_look_up_are_those_of_many_and_so_is_their_gradient():
    table = _tables().item.weight
    wanted = torch.tensor([3, 1, 3]), torch.tensor([[9, 3], [0, 2]])
    found = rows_of(table, *wanted)
    apart = [table[numbers] for numbers in wanted]
    assert all(torch.equal(one, other) for one, other in zip(found, apart, strict=True))
    weights = [torch.randn(one.shape) for one in apart]
    ours, reference = (
        torch.autograd.grad(sum((w * one).sum() for w, one in zip(weights, rows, strict=True)), table)[0]
        for rows in (found, apart)
    )
    torch.testing.assert_close(ours, reference)
    assert ours.any(1).tolist() == [True, True, True, True, False, False, False, False, False, True]
