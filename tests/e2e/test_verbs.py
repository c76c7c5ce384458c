"""The whole job, typed as a user types it: every verb as a process of its own, training on one and on two."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "configs/smoke/soft_token.yaml"
SHORT = ("train.steps=12", "train.save_every=6", "train.log_every=1", "eval.every=6", "data.global_batch=8")


def kindling(folder: Path, *words: object, launcher: tuple[str, ...] = (sys.executable, "-m")) -> str:
    """Runs a verb in `folder`; what it said. The test fails with its words if it does not end well."""
    verb, *rest = map(str, words)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*launcher, f"launch.{verb}", *rest], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a prepared synthetic log."""
    folder = tmp_path_factory.mktemp("job")
    kindling(
        folder, "synthesize", "--users", 120, "--items", 60, "--interactions", 2400, "--seed", 1, "--out", "log.csv"
    )
    said = kindling(folder, "prepare", "log.csv", "--user-column", "user", "--item-column", "item", "--time-column",
                    "timestamp", "--out", "data", "--json", "report.json")  # fmt: skip
    assert "2,400" in said
    assert json.loads((folder / "report.json").read_text())["interactions"] == 2400
    return folder


def curve(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def test_from_a_log_to_recommendations(folder: Path) -> None:
    common = (SMOKE, "dataset=data", *SHORT)
    kindling(folder, "train", *common, "name=one", "data.micro_batch=8")
    two = (sys.executable, "-m", "accelerate.commands.launch", "--config_file",
           str(ROOT / "configs/accelerate/cpu2.yaml"), "-m")  # fmt: skip
    kindling(folder, "train", *common, "name=two", "data.micro_batch=4", launcher=two)
    assert curve(folder / "runs/two") == pytest.approx(curve(folder / "runs/one"), abs=1e-5)
    assert len(curve(folder / "runs/one")) == 12

    said = kindling(folder, "evaluate", "runs/one", "--split", "test", "--json", "test.json")
    content = json.loads((folder / "test.json").read_text())
    assert content["split"] == "test"
    assert set(content["baselines"]) == {"popularity", "recent_popularity", "item_knn", "rules"}
    assert 0 <= content["metrics"]["ndcg@10[full]"] <= 1
    assert "first reading" in said

    (folder / "users.txt").write_text("user\n" + "\n".join(ids(folder)[:3]))
    kindling(folder, "recommend", "runs/one", "--users", "users.txt", "--k", 5, "--out", "known.csv")
    rows = table(folder / "known.csv")
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"] * 3
    seen: dict[str, set[str]] = {row["user"]: set() for row in rows}
    for row in table(folder / "log.csv"):
        if row["user"] in seen:
            seen[row["user"]].add(row["item"])
    assert all(row["item"] not in seen[row["user"]] for row in rows)

    both = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    said = kindling(folder, "recommend", "runs/one", "--all", "--k", 5, "--out", "all.csv", launcher=both)
    assert said.count(f"people, {5 * len(ids(folder))} recommendations: all.csv") == 1
    every = table(folder / "all.csv")
    assert {row["user"] for row in every} == set(ids(folder))
    places = ("user", "rank", "item")
    assert [[row[name] for name in places] for row in every if row["user"] in seen] == [
        [row[name] for name in places] for row in rows
    ]

    (folder / "people.jsonl").write_text('{"items": ["no such item"]}\n')
    said = kindling(folder, "recommend", "runs/one/model", "--history", "people.jsonl", "--k", 2)
    assert "no such item" in said
    assert said.count("[") == 2


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def ids(folder: Path) -> list[str]:
    return list(dict.fromkeys(row["user"] for row in table(folder / "log.csv")))


def test_a_stop_file_saves_and_the_same_command_goes_on(folder: Path) -> None:
    words = (SMOKE, "dataset=data", *SHORT, "name=stopped", "data.micro_batch=8")
    (folder / "runs/stopped").mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "launch.train", *map(str, words), "train.steps=100000"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 3/"):
            (folder / "runs/stopped/STOP").touch()
            break
    with process.stderr:
        process.stderr.read()
    assert process.wait(timeout=60) == 3
    done = len(curve(folder / "runs/stopped"))
    assert 3 <= done < 100000
    said = kindling(folder, "train", *words, f"train.steps={done + 2}")
    assert f"going on from step {done}" in said
    assert len(curve(folder / "runs/stopped")) == done + 2


def test_wrong_input_is_one_sentence_and_exit_code_2(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for words, says in (
        (["train", str(SMOKE), "optim.lrr=1"], "did you mean 'lr'?"),
        (["train", str(SMOKE), "dataset=nowhere"], "is not a prepared dataset"),
        (["train", "nothing.yaml"], "cannot read the configuration nothing.yaml"),
        (["evaluate", "nowhere"], "holds no trained model"),
        (["prepare", "log.csv", "--out", "data"], "data"),
        (["sing"], "there is no verb 'sing'"),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "launch", *words], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 2, ended.stderr
        assert says in ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
