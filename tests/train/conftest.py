"""What the tests of training share."""

import pytest

from launch.command import DONE
from rec.config.tree import Run
from rec.data.dataset import Dataset
from tests.train.runs import make_run, start


@pytest.fixture(scope="session")
def whole(mixed: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of nine steps that nothing interrupted."""
    run = make_run(mixed, tmp_path_factory.mktemp("whole"))
    assert start(run) == DONE
    return run
