"""Ranks: who am I, what all do together, and errors of one that all raise. The ranks are real, forked processes."""

import os
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from rec.errors import CheckpointError, ConfigError, DatasetError
from rec.ranks import Ranks, beside, device_of, from_environment, name_ranks
from rec.rendezvous import attempt
from tests.ranks import run_ranks


def raised(act: Callable[[], Any]) -> tuple[type, str, bool, list[str]] | None:
    """Kind and words of what `act` raises, whether another rank tells it, and its notes."""
    try:
        act()
    except Exception as error:
        return type(error), str(error), vars(error).get("told", False), getattr(error, "__notes__", [])
    return None


class TestTogether:
    def test_each_rank_gets_its_own_value(self):
        assert run_ranks(lambda ranks: ranks.together(lambda: ranks.rank * 10), 3) == [0, 10, 20]
        assert Ranks().together(lambda: "alone") == "alone"

    def test_an_error_of_one_rank_is_raised_by_all_and_told_by_the_first(self):
        def act(ranks: Ranks) -> None:
            if ranks.rank == 2:
                raise DatasetError("it is gone")

        outcomes = run_ranks(lambda ranks: raised(lambda: ranks.together(lambda: act(ranks))), 3)
        for rank, (kind, words, told, _) in enumerate(outcomes):
            assert (kind, words) == (DatasetError, "on rank 2: it is gone")
            assert told == (rank != 0)

    def test_an_error_of_all_ranks_stays_as_it_is(self):
        def act() -> None:
            raise ConfigError("a typo")

        outcomes = run_ranks(lambda ranks: raised(lambda: ranks.together(act)), 2)
        assert [outcome[:3] for outcome in outcomes] == [(ConfigError, "a typo", False), (ConfigError, "a typo", True)]

    def test_ranks_that_fail_in_different_ways_each_raise_their_own(self):
        def act(ranks: Ranks) -> None:
            if ranks.rank == 1:
                raise CheckpointError("torn")
            if ranks.rank == 2:
                raise ZeroDivisionError("by none")

        outcomes = run_ranks(lambda ranks: raised(lambda: ranks.together(lambda: act(ranks))), 3)
        assert [kind for kind, *_ in outcomes] == [CheckpointError, CheckpointError, ZeroDivisionError]
        assert all(notes == ["this happened on ranks 1-2 of 3"] for *_, notes in outcomes)

    @pytest.mark.parametrize("way", ["together", "first_only"])
    def test_an_error_that_cannot_be_sent_leaves_nobody_waiting(self, way: str):
        class Local(Exception):  # cannot be pickled: no other process knows it
            pass

        def act(ranks: Ranks) -> None:
            if ranks.first:
                raise Local("only here")

        def words(ranks: Ranks) -> str:
            with pytest.raises(Exception, match="only here") as caught:
                getattr(ranks, way)(lambda: act(ranks))
            return str(caught.value)

        assert run_ranks(words, 2, seconds=20)[1] == "Local: only here"


def test_the_second_group_works_while_the_first_is_busy():
    def both(ranks: Ranks) -> tuple[list[int], list[str]]:
        aside, heard = beside(ranks, 30), []
        thread = threading.Thread(target=lambda: heard.append(aside.gather(f"aside {ranks.rank}")), daemon=True)
        if ranks.first:  # the exchanges begin in another order on either rank: in one group they would be mixed up
            thread.start()
            time.sleep(0.2)
            values = ranks.gather(ranks.rank)
        else:
            waiting = threading.Timer(0.4, thread.start)
            waiting.start()
            values = ranks.gather(ranks.rank)
            waiting.join()
        thread.join()
        return values, heard[0]

    assert run_ranks(both, 2, seconds=30) == [([0, 1], ["aside 0", "aside 1"])] * 2
    assert beside(Ranks(), 1) == Ranks()


def test_ranks_are_named_in_spans():
    assert name_ranks([3]) == "rank 3"
    assert name_ranks([0, 1, 2, 5, 8, 9]) == "ranks 0-2, 5, 8-9"


class TestAttempt:
    """The word of an attempt, on a store that restarted ranks share with the dead."""

    @staticmethod
    def meet(store: dist.Store, world: int) -> list[str]:
        words = [""] * world

        def one(rank: int) -> None:
            words[rank] = attempt(store, rank, world, 20)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in reversed(range(world))]
        for thread in threads:
            thread.start()
            time.sleep(0.05)  # the first rank comes last
        for thread in threads:
            thread.join(30)
        return words

    def test_all_ranks_have_one_word_and_each_attempt_its_own(self):
        store = dist.HashStore()
        attempts = [self.meet(store, 3) for _ in range(3)]
        assert all(len(set(words)) == 1 for words in attempts)
        assert len({words[0] for words in attempts}) == 3

    def test_ranks_that_died_while_they_met_are_not_waited_for(self):
        store = dist.HashStore()
        store.set("greeting/1", "of a rank that died before it was answered")
        store.set("greeting/2", "another")
        store.set("answer/another", "by a first rank that died, too")
        assert len(set(self.meet(store, 3))) == 1

    def test_a_rank_that_does_not_come_is_named(self):
        store = dist.HashStore()
        store.set("greeting/1", "of the dead")
        with pytest.raises(TimeoutError, match=r"rank 1 has not come within 0\.1 seconds"):
            attempt(store, 0, 2, 0.1)


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def own_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without what a batch system or an MPI may have put there, and with what a test puts there taken away."""
        ours = ("SLURM_", "OMPI_", "PMI", "MV2_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        monkeypatch.setattr(os, "environ", kept)

    def test_a_process_that_nothing_has_launched_is_alone(self):
        assert from_environment() == Ranks(0, 1, 0)

    def test_torchrun_says_which_rank_this_is(self):
        os.environ |= {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}
        assert from_environment() == Ranks(5, 8, 1)

    def test_a_batch_script_and_a_step_of_one_task_are_alone(self):
        os.environ |= {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
        assert from_environment() == Ranks()
        os.environ |= {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}
        assert from_environment() == Ranks()
        os.environ |= {"PMIX_RANK": "0"}
        assert from_environment() == Ranks()

    def test_srun_without_mpi_is_refused_before_it_trains_the_same_run_twice(self):
        os.environ |= {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
        with pytest.raises(ConfigError, match=r"2 copies of this command.*slurm/train.sh.*torchrun.*--mpi=pmix"):
            from_environment()

    @pytest.mark.parametrize(
        "launcher",
        [{"OMPI_COMM_WORLD_SIZE": "2"}, {"PMI_SIZE": "2"}, {"PMIX_RANK": "1", "SLURM_STEP_NUM_TASKS": "2"}],
        ids=["mpirun", "pmi2", "pmix"],
    )
    def test_an_mpi_launcher_needs_mpi4py(self, launcher: dict[str, str], monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "mpi4py", None)
        os.environ |= launcher
        with pytest.raises(ConfigError, match=r"started 2 processes.*pip install 'kindling\[mpi\]'"):
            from_environment()

    def test_an_mpi_that_does_not_know_the_launcher_is_refused(self, monkeypatch: pytest.MonkeyPatch):
        everyone = SimpleNamespace(size=1, rank=0)
        mpi = SimpleNamespace(COMM_WORLD=everyone, Get_library_version=lambda: "MPI of another house, version 5")
        monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=mpi))
        os.environ |= {"PMI_SIZE": "2"}
        with pytest.raises(ConfigError, match="started 2 processes, but MPI of another house sees 1"):
            from_environment()


class TestDevice:
    @pytest.fixture
    def machine(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
        def has(devices: int) -> None:
            monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
            monkeypatch.setattr(torch.accelerator, "device_count", lambda: devices)

        return has

    def test_each_rank_has_its_own(self, machine: Callable[[int], None]):
        machine(4)
        assert [device_of(Ranks(rank, 8, rank % 4)).index for rank in range(8)] == [0, 1, 2, 3] * 2

    def test_the_only_one_that_slurm_shows_is_the_ranks_own(self, machine: Callable[[int], None]):
        machine(1)
        assert device_of(Ranks(3, 4, 3)) == torch.device("cuda", 0)

    def test_more_ranks_than_devices_are_refused(self, machine: Callable[[int], None]):
        machine(2)
        with pytest.raises(ConfigError, match=r"process 2 of this machine has no cuda device.*start 2 processes"):
            device_of(Ranks(2, 4, 2))
