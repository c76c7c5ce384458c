"""Where measurements go besides metrics.jsonl: thin constructors of Accelerate's trackers, by name."""

import hashlib
from collections.abc import Mapping

from accelerate.tracking import (
    GeneralTracker,
    MLflowTracker,
    TensorBoardTracker,
    TrackioTracker,
    WandBTracker,
)

from rec.config.tree import Run
from rec.errors import ConfigError

PROJECT = "kindling"


class _MlFlow(MLflowTracker):
    """MLflow takes no @ in the name of a metric."""

    def log(self, values: dict[str, float], step: int | None = None, **more: object) -> None:
        super().log({name.replace("@", "_at_"): value for name, value in values.items()}, step, **more)


def start(run: Run, step: int, runs: Mapping[str, str]) -> list[GeneralTracker]:
    """Opens the run's trackers, or goes on with the tracker runs of an earlier start.

    Args:
        run: the run; its folder is where local trackers write.
        step: first step that will be logged; later points of an earlier start are dropped where the tracker can.
        runs: tracker name -> id of the run there, as `identifiers` gave it.
    """
    identity = hashlib.sha256(str(run.folder.resolve()).encode()).hexdigest()[:16]
    trackers: list[GeneralTracker] = []
    for name in run.train.trackers:
        match name:
            case "tensorboard":
                tracker: GeneralTracker = TensorBoardTracker("tensorboard", logging_dir=run.folder, purge_step=step)
            case "wandb":
                tracker = WandBTracker(PROJECT, name=run.name, id=identity, resume="allow", dir=str(run.folder))
            case "mlflow":
                tracker = _MlFlow(PROJECT, run_name=run.name, run_id=runs.get("mlflow"))
            case "trackio":
                tracker = TrackioTracker(PROJECT, name=run.name, resume="allow")
        try:
            tracker.start()
        except ImportError:
            raise ConfigError(
                f"train.trackers names {name}, which is not installed; run `pip install -e '.[{name}]'` in the project"
            ) from None
        trackers.append(tracker)
    return trackers


def identifiers(trackers: list[GeneralTracker]) -> dict[str, str]:
    """Tracker name -> id of its run, for those that choose the id themselves."""
    return {tracker.name: tracker.tracker.info.run_id for tracker in trackers if isinstance(tracker, MLflowTracker)}
