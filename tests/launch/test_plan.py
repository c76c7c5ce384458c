"""`kindling plan` as people type it."""

import re
from pathlib import Path

import pytest

from launch import plan
from launch.command import DONE, WRONG_INPUT

CONFIG = """
dataset: data/none
model:
  kind: soft_token
  dim: 16
  backbone: {config: {n_embd: 32, n_layer: 2, n_head: 2, n_positions: 64, vocab_size: 8}}
data: {global_batch: 24, micro_batch: 3, max_items: 8}
"""
SIZES = ["--users", "100", "--items", "50", "--interactions", "2000"]


@pytest.fixture
def kindling_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "small.yaml").write_text(CONFIG)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["kindling plan", str(tmp_path / "small.yaml"), *words])
        code = plan.main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def test_a_plan_has_a_row_for_each_strategy_and_says_what_is_assumed(kindling_plan):
    code, text = kindling_plan(*SIZES, "--gpus", "4", "--memory", "80GB", "data.micro_batch=6", "--nodes", "2")
    assert code == WRONG_INPUT  # 8 ranks x 6 windows are more than 24
    assert "data.micro_batch" in text
    code, text = kindling_plan(*SIZES, "--gpus", "4", "--memory", "80GB", "--nodes", "2")
    assert code == DONE
    assert [line.split()[0] for line in text.splitlines() if re.match(r"ddp|zero|fsdp", line)] == [
        "ddp", "zero1", "zero2", "fsdp2", "zero3"
    ]  # fmt: skip
    assert "24 windows = 8 processes x 1 micro-batch of 3" in text
    assert "ddp is the simplest strategy that fits." in text
    assert "assumed, not measured: 40% of 67.0 TFLOP/s, and 40 GB/s" in text


def test_each_stage_of_a_plan_is_said_before_it_is_waited_for(
    kindling_plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    said = []
    monkeypatch.setattr("rec.train.plan.plan.Stage.rehearse", lambda *_: said.append(capsys.readouterr()) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kindling_plan(*SIZES)
    assert said[0].out == ""
    assert said[0].err == "rehearsing a training step of 0 million parameters, without data\n"


def test_without_a_gpu_the_plan_is_for_this_machine(kindling_plan, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    code, text = kindling_plan(*SIZES)
    assert code == DONE
    assert "single is the simplest strategy that fits." in text
    assert "1 process on 1 machine" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--gpus", "8", "--memory", "80 GBs"], "--memory is '80 GBs'; write a number and GB or GiB"),
        (["--gpus", "8", "--memory", "80MB"], "--memory is '80MB'"),
        (["--gpus", "0", "--memory", "80GB"], "--gpus is 0; give a positive number"),
        (["--gpus", "8"], "say it with --memory"),
        (["--gpus", "7", "--memory", "80GB"], "set data.global_batch to a multiple of 21"),
        (["--gpus", "2", "--memory", "80GB", "--tflops", "-1"], "--tflops is -1.0"),
        (["--users", "0"], "--users is 0"),
        (["--interactions", "100"], "leave nothing to train on"),
        (["model.backbone.architecture=gtp2"], "choose for example gpt2"),
        (["data.max_items=64"], "set data.max_items to at most 63"),
    ],
)
def test_wrong_input_is_one_sentence(words: list[str], sentence: str, kindling_plan, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    code, text = kindling_plan(*SIZES, *words)
    assert code == WRONG_INPUT
    assert sentence in text
    assert len(text.splitlines()) == 1


def test_a_dataset_that_is_not_there_needs_its_sizes(kindling_plan):
    code, text = kindling_plan("--gpus", "2", "--memory", "80GB")
    assert code == WRONG_INPUT
    assert "give --users, --items and --interactions" in text
    code, text = kindling_plan("--gpus", "2", "--memory", "80GB", "--users", "10")
    assert code == WRONG_INPUT
    assert "--items and --interactions" in text


def test_no_weights_are_read_for_a_plan(tmp_path: Path, kindling_plan):
    from transformers import AutoConfig

    AutoConfig.for_model("gpt2", n_embd=32, n_layer=2, n_head=2, n_positions=64).save_pretrained(tmp_path / "source")
    code, text = kindling_plan(*SIZES, f"model.backbone={{source: {tmp_path / 'source'}}}")
    assert code == DONE, text


def test_documents_cannot_be_planned(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.argv", ["kindling plan", "configs/graph_llm/small_content.yaml", *SIZES])
    monkeypatch.chdir(Path(__file__).parents[2])
    assert plan.main() == WRONG_INPUT
    assert "is of kind graph_llm" in capsys.readouterr().err
