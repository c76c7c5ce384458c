"""What a user's own DeepSpeed JSON changes of the layout: training, checkpoints and resumes stay what they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.command import DONE, STOPPED
from rec.config.tree import Run
from rec.data.dataset import Dataset
from tests.dist.runs import STEPS, a_random_run, assert_close, curve_of, execute_on
from tests.small import saved_tensors

pytest.importorskip("deepspeed.runtime.zero.muon.muon_optimizer", reason="install kindling[deepspeed]")

ROOT = Path(__file__).parents[2]
CPU = {"device": "cpu"}
FILES: dict[str, dict[str, Any]] = {
    "at the root": json.loads((ROOT / "ds_config.json").read_text()),
    # DeepSpeed deals parameters in another order then
    "offload, round robin": {"stage": 2, "offload_optimizer": CPU, "round_robin_gradients": True},
    # of a model this small, nothing is sharded unless the threshold says so
    "offload of all, many groups": {
        "stage": 3,
        "offload_optimizer": CPU,
        "offload_param": CPU,
        "stage3_param_persistence_threshold": 100,
        "sub_group_size": 1000,
    },
}


@pytest.fixture(scope="module")
def alone(mixed: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = a_random_run(mixed, tmp_path_factory.mktemp("alone"), "qwen3")
    assert execute_on(run, 1) == DONE
    return run


@pytest.mark.parametrize("name", FILES)
def test_it_trains_like_one_process_and_saves_what_that_would_and_goes_on_bit_for_bit(
    mixed: Dataset, tmp_path: Path, alone: Run, name: str, stop_after: Callable[[int], None]
):
    content = FILES[name]
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(content if "zero_optimization" in content else {"zero_optimization": content}))
    whole, broken = (a_random_run(mixed, tmp_path / folder, "qwen3", 3) for folder in ("whole", "broken"))
    assert execute_on(whole, 2, str(file)) == DONE
    assert_close(curve_of(whole), curve_of(alone), name)
    saved, expected = saved_tensors(whole, STEPS), saved_tensors(alone, STEPS)
    assert saved.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(saved[key], value, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")

    for looks, code in ((3, STOPPED), (100, DONE)):
        stop_after(looks)
        assert execute_on(broken, 2, str(file)) == code
    assert curve_of(broken) == curve_of(whole)
    again = saved_tensors(broken, STEPS)
    assert all(torch.equal(again[key], saved[key]) for key in saved)
