"""Ranks that disagree end at the start, with one error that says on what and who has what."""

import dataclasses
from pathlib import Path

import pytest

from launch.train import execute
from rec.config.tree import LightGcn, Run
from rec.data.dataset import Dataset
from rec.errors import ConfigError
from rec.ranks import Ranks
from rec.train.agreement import HOUSE, digest_of_code, facts, require_agreement
from tests.ranks import run_ranks
from tests.small import graph_for
from tests.train.runs import make_run


def error_of_all(facts_of: dict[int, dict[str, object]], world: int) -> str:
    """What ranks say whose facts are those of rank 0 unless others are given; told once."""

    def one(ranks: Ranks) -> tuple[str, bool]:
        with pytest.raises(ConfigError) as caught:
            require_agreement(ranks, facts_of.get(ranks.rank, facts_of[0]))
        return str(caught.value), caught.value.told

    outcomes = run_ranks(one, world)
    assert [told for _, told in outcomes] == [False] + [True] * (world - 1)
    (error,) = {error for error, _ in outcomes}
    return error


def test_the_error_names_the_key_and_who_has_what():
    error = error_of_all({0: {"optim.lr": 1e-3, "seed": 0}, 2: {"optim.lr": 2e-3, "seed": 0}}, 4)
    assert "do not agree on optim.lr: ranks 0-1, 3 0.001, rank 2 0.002;" in error


def test_further_differences_are_named_too():
    error = error_of_all({0: {"a": 1, "b": 1, "c": 1}, 1: {"a": 1, "b": 2}}, 2)
    assert "on b: rank 0 1, rank 1 2 (nor on c);" in error


def test_ranks_that_agree_go_on():
    def one(ranks: Ranks) -> int:
        require_agreement(ranks, {"seed": 0, "betas": (0.9, 0.95)})
        return ranks.rank

    assert run_ranks(one, 2) == [0, 1]


@pytest.fixture
def run(mixed: Dataset, tmp_path: Path) -> Run:
    return make_run(mixed, tmp_path)


def test_facts_are_the_configuration_the_data_the_code_and_the_packages(run: Run, mixed: Dataset):
    known = facts(run, mixed)
    assert known["optim.lr"] == run.optim.lr
    assert known["model.backbone.architecture"] == "gpt2"
    assert known["the dataset's fingerprint"] == mixed.fingerprint
    assert len(str(known["the code of Kindling"])) == 16
    assert {f"the version of {name}" for name in ("torch", "transformers", "accelerate", "deepspeed")} < set(known)


def test_a_nodes_own_copy_of_the_dataset_is_no_difference(run: Run, mixed: Dataset):
    assert facts(dataclasses.replace(run, dataset=Path("/scratch/copy")), mixed) == facts(run, mixed)


def test_the_graph_counts_where_one_is_read(run: Run, mixed: Dataset):
    reading = dataclasses.replace(run, model=LightGcn(), data=dataclasses.replace(run.data, negatives=4))
    graph = graph_for(mixed)
    assert facts(reading, mixed)["the graph's fingerprint"] == graph.fingerprint
    assert "the graph's fingerprint" not in facts(run, mixed)


def test_every_source_counts_by_name_and_content(tmp_path: Path):
    (tmp_path / "rec").mkdir()
    (tmp_path / "launch").mkdir()
    source = tmp_path / "rec" / "a.py"
    seen = set()
    for content in ("x = 1\n", "x = 2\n"):
        source.write_text(content)
        seen.add(digest_of_code(tmp_path))
    source.rename(tmp_path / "rec" / "b.py")
    seen.add(digest_of_code(tmp_path))
    (tmp_path / "rec" / "b.txt").touch()
    seen.add(digest_of_code(tmp_path))
    assert len(seen) == 3
    assert (HOUSE / "rec" / "train" / "agreement.py").is_file()


@pytest.mark.parametrize("what", ["configuration", "strategy", "dataset"])
def test_a_run_ends_before_it_begins_if_its_ranks_disagree(
    run: Run, mixed: Dataset, rings: Dataset, what: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("launch.train.made", lambda *_, **__: pytest.fail("memory was spent on a model"))
    others = {
        "configuration": dataclasses.replace(run, optim=dataclasses.replace(run.optim, lr=0.5)),
        "strategy": run,
        "dataset": dataclasses.replace(run, dataset=rings.root),
    }
    named = {"configuration": "optim.lr: rank 0 0.003, rank 1 0.5", "strategy": "--strategy", "dataset": "fingerprint"}

    def one(ranks: Ranks) -> str:
        if ranks.first:
            strategy = "ddp" if what == "strategy" else None
            with pytest.raises(ConfigError) as caught:
                execute(run, strategy)
        else:
            strategy = "fsdp2" if what == "strategy" else None
            with pytest.raises(ConfigError) as caught:
                execute(others[what], strategy)
        return str(caught.value)

    for error in run_ranks(one, 2, seconds=60):
        assert f"the ranks do not agree on {named[what]}" in error.replace("the dataset's ", "")
    assert not run.folder.exists()


def test_a_dataset_that_one_rank_cannot_open_ends_all(run: Run, tmp_path: Path):
    def one(ranks: Ranks) -> str:
        mine = run if ranks.first else dataclasses.replace(run, dataset=tmp_path / "nowhere")
        with pytest.raises(Exception, match=r"on rank 1: .*nowhere is not a prepared dataset") as caught:
            execute(mine)
        return type(caught.value).__name__

    assert run_ranks(one, 2, seconds=60) == ["DatasetError", "DatasetError"]
