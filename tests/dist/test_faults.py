"""Killed, damaged and squeezed runs end as the undisturbed run does. The long form: benchmarks/reliability.py."""

import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.command import DONE, WRONG_INPUT
from rec.config.tree import Run
from rec.data.dataset import Dataset
from rec.train.checkpoint import damage
from tests.faults.compare import batches, differences, notes
from tests.faults.damage import flip, hurt
from tests.faults.kill import MOST_SECONDS, Aim, draw, strike, survive, whole
from tests.faults.runs import Case, make_dataset, make_run
from tests.faults.start import Limit, Start, adopting, prepare

pytest.importorskip("deepspeed", reason="install kindling[deepspeed]")

KILLS = {"single": 1, "ddp": 2, "zero2": 2, "zero3": 2, "fsdp2": 2}
"""Strategy -> ranks."""
Undisturbed = dict[Case, tuple[Run, float, float]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    prepare()
    with adopting():
        yield make_dataset(tmp_path_factory.mktemp("faults") / "dataset")


@pytest.fixture(scope="module")
def undisturbed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Runs that nobody disturbs, with their seconds, and the seconds before the first step."""
    made: Undisturbed = {}
    for strategy, world in KILLS.items():
        case = Case(strategy, "gpt2", world)
        run = make_run(dataset, tmp_path_factory.mktemp("whole"), case)
        made[case] = (run, *whole(run, case))
    return made


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that holds two checkpoints, but no third."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "none", str(place)], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("strategy", KILLS)
def test_runs_killed_at_random_moments_end_bit_for_bit_as_the_undisturbed_one(
    dataset: Dataset, tmp_path: Path, undisturbed: Undisturbed, strategy: str
):
    case = Case(strategy, "gpt2", KILLS[strategy])
    reference, seconds, first = undisturbed[case]
    in_a_save = Aim("begun", 0.004, 2, (case.world - 1,))
    for number, aims in enumerate(
        ([in_a_save, Aim("start", 0.8 * first, 1, (0,))], draw(strategy, case.world, seconds, first))
    ):
        run = make_run(dataset, tmp_path / str(number), case)
        kills, wrong = survive(run, case, aims)
        assert wrong == [], kills
        assert differences(run, reference) == [], kills
        assert kills or number


@pytest.mark.parametrize("seed", range(6))
def test_damaged_checkpoints_are_named_and_the_newest_whole_one_is_used(
    dataset: Dataset, tmp_path: Path, undisturbed: Undisturbed, seed: int
):
    dice, case = random.Random(seed), Case("ddp", "gpt2", 2)
    run = make_run(dataset, tmp_path, case)
    killed_after_saves(run, case, 4)
    *_, whole_one, hurt_one, other = sorted((run.folder / "checkpoints").glob("step-????????"))
    done = [hurt(hurt_one, dice), hurt(other, dice)]
    start = Start(run, case, notes(run) / "second")
    start.wait(MOST_SECONDS)
    said = start.said()
    assert all(f"{folder} is damaged (" in said for folder in (hurt_one, other)), (done, said)
    assert f"going on from step {int(whole_one.name[-8:])}" in said
    assert differences(run, undisturbed[case][0]) == [], done


def test_a_run_whose_checkpoints_are_all_damaged_stops_and_changes_nothing(dataset: Dataset, tmp_path: Path):
    dice, case = random.Random(0), Case("ddp", "gpt2", 2)
    run = make_run(dataset, tmp_path, case)
    killed_after_saves(run, case, 3)
    folder = run.folder / "checkpoints"
    for checkpoint in folder.glob("step-????????"):
        hurt(checkpoint, dice)
    before, measured = snapshot(folder), (run.folder / "metrics.jsonl").read_bytes()
    start = Start(run, case, notes(run) / "second")
    start.wait(MOST_SECONDS)
    assert set(start.codes.values()) == {WRONG_INPUT}
    assert f"every checkpoint in {folder} is damaged; restore one" in start.said()
    assert (snapshot(folder), (run.folder / "metrics.jsonl").read_bytes()) == (before, measured)
    assert batches(run)["second"] == {}


@pytest.mark.parametrize("seed", range(3))
def test_any_flipped_bit_of_any_file_is_noticed(undisturbed: Undisturbed, seed: int):
    """Every bit of the marker, which no checksum covers; many of the other files."""
    run, *_ = undisturbed[Case("ddp", "gpt2", 2)]
    folder, dice = max((run.folder / "checkpoints").glob("step-????????")), random.Random(seed)
    assert damage(folder) is None
    for file in sorted(folder.iterdir()):
        bits = 8 * file.stat().st_size
        chosen = range(seed, bits, 3) if file.name == "COMMITTED" else (dice.randrange(bits) for _ in range(40))
        for bit in chosen:
            flip(file, bit)
            assert damage(folder) is not None, (file.name, bit)
            flip(file, bit)
    assert damage(folder) is None


@pytest.mark.parametrize("strategy", ["single", "ddp", "zero3"])
def test_a_full_disk_leaves_the_older_checkpoints_whole_and_the_run_goes_on_when_there_is_room(
    dataset: Dataset, small_disk: Path, undisturbed: Undisturbed, strategy: str
):
    case = Case(strategy, "gpt2", KILLS[strategy])
    run = make_run(dataset, small_disk, case)
    start = Start(run, case, notes(run) / "first")
    start.wait(MOST_SECONDS)
    failed_as_it_should(start)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    goes_on(run, case, undisturbed)


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "fsdp2"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_save_that_fails_on_one_rank_fails_as_a_whole(
    dataset: Dataset, tmp_path: Path, undisturbed: Undisturbed, strategy: str, rank: int
):
    case = Case(strategy, "gpt2", 2)
    run = make_run(dataset, tmp_path, case)
    killed_after_saves(run, case, 2)
    start = Start(run, case, notes(run) / "second", limit=Limit(rank, 600_000))
    start.wait(MOST_SECONDS)
    failed_as_it_should(start)
    goes_on(run, case, undisturbed)


def killed_after_saves(run: Run, case: Case, saves: int) -> None:
    assert strike(Start(run, case, notes(run) / "first"), Aim("renamed", 0.002, saves, tuple(range(case.world))))


def failed_as_it_should(start: Start) -> None:
    """Exit code 2 everywhere, one sentence, nothing half saved, and what was saved before is whole."""
    assert set(start.codes.values()) == {WRONG_INPUT}, [start.said(rank) for rank in start.pids]
    said = [line for rank in start.pids for line in start.said(rank).splitlines() if "cannot" in line]
    assert len(said) == 1, said
    assert "cannot save" in said[0]
    assert "earlier checkpoints are intact: make room and start again" in said[0]
    folders = sorted((start.run.folder / "checkpoints").iterdir())
    checkpoints = [folder for folder in folders if folder.is_dir()]
    assert checkpoints
    assert [damage(folder) for folder in checkpoints] == [None] * len(checkpoints)
    assert json.loads((start.run.folder / "status.json").read_text())["state"] == "failed"


def goes_on(run: Run, case: Case, undisturbed: Undisturbed) -> None:
    start = Start(run, case, notes(run) / "last")
    start.wait(MOST_SECONDS)
    assert set(start.codes.values()) == {DONE}
    assert "going on from step" in start.said()
    assert differences(run, undisturbed[case][0]) == []


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
