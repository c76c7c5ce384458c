"""What a launch asks for: the command line, the environment that `accelerate launch` leaves, and both together."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launch import strategy
from launch.strategy import asked, from_accelerate, named
from rec.config.tree import Run, Train
from rec.data.dataset import Dataset
from rec.errors import ConfigError
from rec.ranks import Ranks
from rec.train.strategies import Strategy, build
from tests.small import a_run, soft_token

ROOT = Path(__file__).parents[2]
TWO = Ranks(rank=0, world=2)
PLAIN = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO"}
"""What every `accelerate launch` leaves."""
FSDP = {**PLAIN, "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
ZERO = {
    **PLAIN,
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
    "ACCELERATE_GRADIENT_CLIPPING": "none",
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
    "ACCELERATE_DEEPSPEED_CONFIG_FILE": "none",
}


@pytest.fixture
def run(mixed: Dataset, tmp_path: Path) -> Run:
    return a_run(mixed, tmp_path, soft_token())


@pytest.fixture
def under(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Strategy]:
    """The strategy of a launch with this environment and this --strategy."""
    monkeypatch.setattr(strategy, "processes_promised", lambda: 2)

    def ask(environment: dict[str, str], given: str | None = None, ranks: Ranks = TWO) -> Strategy:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return asked(given, ranks, run)

    return ask


def zero(stage: int, **section: Any) -> Strategy:
    return Strategy(f"zero{stage}", deepspeed={"zero_optimization": {"stage": stage, **section}})  # type: ignore[arg-type]


class TestTheCommandLine:
    @pytest.mark.parametrize("name", ["single", "ddp", "fsdp2"])
    def test_a_name_is_a_strategy(self, name: Any):
        assert named(name) == Strategy(name)

    @pytest.mark.parametrize("stage", [1, 2, 3])
    def test_zero_is_its_stage_and_nothing_else(self, stage: int):
        assert named(f"zero{stage}") == zero(stage)

    @pytest.mark.parametrize("name", ["zero", "zero0", "zero4", "ZERO2", "fsdp", "", "ds_config.yaml"])
    def test_another_name_is_an_error_that_lists_the_choices(self, name: str):
        with pytest.raises(ConfigError, match=f"--strategy is {name}; choose one of single, ddp, .*, or a DeepSpeed"):
            named(name)

    def test_a_json_is_taken_whole(self, tmp_path: Path):
        content = {"zero_optimization": {"stage": 3, "overlap_comm": False}, "more": {"x": [1]}}
        (tmp_path / "mine.json").write_text(json.dumps(content))
        assert named(str(tmp_path / "mine.json")) == Strategy("zero3", deepspeed=content)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("{,}", "mine.json is no JSON"),
            ("[1]", "mine.json holds no JSON object"),
            ('{"zero_optimization": {"stage": 0}}', "mine.json: zero_optimization.stage is 0; choose 1, 2 or 3"),
            ('{"zero_optimization": true}', "zero_optimization=True; give it an object"),
            ("{}", "zero_optimization.stage is None"),
        ],
    )
    def test_a_json_that_is_none_is_one_sentence(self, tmp_path: Path, text: str, says: str):
        (tmp_path / "mine.json").write_text(text)
        with pytest.raises(ConfigError, match=says):
            named(str(tmp_path / "mine.json"))

    def test_the_file_at_the_root_is_zero2(self):
        assert named(str(ROOT / "ds_config.json")).name == "zero2"

    def test_without_a_word_one_process_is_single_and_several_are_ddp(self, under: Callable[..., Strategy]):
        assert under({}, ranks=Ranks()) == Strategy("single")
        assert under({}) == Strategy("ddp")


class TestAccelerate:
    @pytest.mark.parametrize(
        ("environment", "strategy"),
        [
            (PLAIN, None),
            (ZERO, zero(2)),
            ({**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, zero(3)),
            (
                {**ZERO, "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"},
                zero(2, offload_optimizer={"device": "cpu"}),
            ),
            (
                {**ZERO, "ACCELERATE_GRADIENT_CLIPPING": "1.0", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
                Strategy("zero2", {**zero(2).deepspeed, "gradient_clipping": 1.0, "gradient_accumulation_steps": 4}),
            ),
            (FSDP, Strategy("fsdp2")),
            (
                {**FSDP, "FSDP_RESHARD_AFTER_FORWARD": "false", "FSDP_OFFLOAD_PARAMS": "true"},
                Strategy("fsdp2", reshard_after_forward=False, offload=True),
            ),
            ({**PLAIN, "ACCELERATE_MIXED_PRECISION": "fp32"}, None),
        ],
    )
    def test_its_environment_is_a_strategy(self, run: Run, environment: dict[str, str], strategy: Strategy | None):
        if environment["ACCELERATE_MIXED_PRECISION"] == "fp32":  # the run's own precision may be said twice
            environment = {**environment, "ACCELERATE_MIXED_PRECISION": run.train.precision}
        assert from_accelerate(environment, run) == strategy

    def test_a_json_in_another_folder_is_found_from_the_current_one(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "z3.json").write_text('{"zero_optimization": {"stage": 3}}')
        monkeypatch.chdir(tmp_path)
        for file in ("mine/z3.json", str(tmp_path / "mine" / "z3.json")):
            assert from_accelerate({**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": file}, run) == zero(3)
        with pytest.raises(FileNotFoundError, match=r"there\.json"):
            from_accelerate({**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "there.json"}, run)

    @pytest.mark.parametrize(
        ("environment", "says"),
        [
            ({**PLAIN, "ACCELERATE_MIXED_PRECISION": "bf16"}, "mixed_precision: bf16 but train.precision is fp32"),
            ({**ZERO, "ACCELERATE_MIXED_PRECISION": "fp8"}, "mixed_precision: fp8 but train.precision is fp32"),
            ({**PLAIN, "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, r"torch.compile \(dynamo_config\).*; remove it"),
            ({**PLAIN, "ACCELERATE_USE_MEGATRON_LM": "true"}, "asks for Megatron-LM; use one of configs/accelerate"),
            ({**FSDP, "ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "asks for a parallelism_config; use one of"),
            ({**FSDP, "FSDP_VERSION": "1"}, "asks for FSDP1; set fsdp_version: 2"),
            ({**FSDP, "FSDP_ACTIVATION_CHECKPOINTING": "true"}, "set model.backbone.gradient_checkpointing=true"),
            ({**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}, "the Accelerate file: zero_optimization.stage is 0"),
        ],
    )
    def test_what_a_run_does_not_offer_is_an_error(self, run: Run, environment: dict[str, str], says: str):
        with pytest.raises(ConfigError, match=says) as caught:
            from_accelerate(environment, run)
        assert len(str(caught.value).splitlines()) == 1

    def test_its_precision_may_be_the_runs(self, mixed: Dataset, tmp_path: Path):
        run = a_run(mixed, tmp_path, soft_token(), train=Train(precision="bf16"))
        assert from_accelerate({**FSDP, "ACCELERATE_MIXED_PRECISION": "bf16"}, run) == Strategy("fsdp2")
        assert from_accelerate(FSDP, run) == Strategy("fsdp2")  # it says nothing of it


class TestBoth:
    def test_the_command_line_chooses_where_the_file_starts_plain_processes(self, under: Callable[..., Strategy]):
        assert under(PLAIN, "zero3") == zero(3)
        assert under(PLAIN) == Strategy("ddp")

    def test_the_same_said_twice_keeps_what_only_the_file_says(self, under: Callable[..., Strategy], tmp_path: Path):
        assert under({**FSDP, "FSDP_RESHARD_AFTER_FORWARD": "false"}, "fsdp2").reshard_after_forward is False

    def test_the_same_json_may_be_said_twice(self, under: Callable[..., Strategy]):
        file = str(ROOT / "ds_config.json")
        environment = {**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": file}
        assert under(environment, file) == under(environment, "zero2") == named(file)

    @pytest.mark.parametrize("given", ["ddp", "zero3", "fsdp2", str(ROOT / "ds_config.json")])
    def test_a_contradiction_is_an_error(self, under: Callable[..., Strategy], given: str):
        with pytest.raises(ConfigError, match=f"--strategy is {given} but the Accelerate file asks for zero2; leave"):
            under(ZERO, given)

    def test_fewer_processes_than_promised_are_an_error(self, under: Callable[..., Strategy]):
        with pytest.raises(ConfigError, match="was asked for 2 processes but started one, as it does without a word"):
            under(PLAIN, ranks=Ranks())
        assert under(PLAIN).name == "ddp"


@pytest.mark.parametrize(
    ("name", "ranks", "says"),
    [
        *(
            (name, Ranks(), f"{name} is asked for but one process runs alone")
            for name in ("ddp", "zero1", "zero2", "zero3", "fsdp2")
        ),
        ("single", TWO, "the strategy is single but 2 processes run; choose ddp"),
    ],
)
def test_a_strategy_that_does_not_fit_the_processes_is_an_error(run: Run, name: Any, ranks: Ranks, says: str):
    with pytest.raises(ConfigError, match=says):
        build(Strategy(name), run, ranks)


class TestProcessesPromised:
    """With a real parent, whose command line is that of an `accelerate launch`."""

    CHILD = "from launch.strategy import processes_promised; print(processes_promised())"
    PARENT = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', sys.argv[1]]).returncode)"

    def promised(self, home: Path, *words: object) -> str:
        command = [sys.executable, "-c", self.PARENT, self.CHILD, *map(str, words)]
        environment = {"PYTHONPATH": str(ROOT), "HF_HOME": str(home), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def test_it_is_read_from_the_command_line_and_the_file_of_the_parent(self, tmp_path: Path):
        file, other = tmp_path / "file.yaml", tmp_path / "file.json"
        file.write_text("num_machines: 1\nnum_processes: 3\n")
        other.write_text('{\n  "num_machines": 1,\n  "num_processes": 5\n}')
        asked_for = [
            (("--num_processes", 2), "2"),
            (("--num-processes=4", "--cpu"), "4"),
            (("--config_file", file), "3"),
            ((f"--config_file={file}", "--num_processes", 2), "2"),
            (("--config-file", other), "5"),
            (("--config_file", tmp_path / "nowhere.yaml"), "None"),
            ((), "None"),
        ]
        for words, expected in asked_for:
            assert self.promised(tmp_path, *words) == expected, words

    def test_accelerates_own_default_file_counts_too(self, tmp_path: Path):
        (tmp_path / "accelerate").mkdir()
        (tmp_path / "accelerate" / "default_config.yaml").write_text("num_processes: 7\n")
        assert self.promised(tmp_path, "launch", "--cpu") == "7"
