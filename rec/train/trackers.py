"""Where measurements go besides metrics.jsonl: thin constructors of Accelerate's trackers, by name."""

import json
import secrets
from contextlib import suppress
from pathlib import Path

from accelerate.tracking import (
    GeneralTracker,
    MLflowTracker,
    TensorBoardTracker,
    TrackioTracker,
    WandBTracker,
)

from rec.config.tree import Run
from rec.errors import ConfigError
from rec.files import replace_text

PROJECT = "kindling"


class _MlFlow(MLflowTracker):
    """MLflow takes no @ in the name of a metric."""

    def log(self, values: dict[str, float], step: int | None = None, **more: object) -> None:
        super().log({name.replace("@", "_at_"): value for name, value in values.items()}, step, **more)


class _TensorBoard(TensorBoardTracker):
    """TensorBoard drops all points from a step on. Of that step, those that do not come again are written again."""

    def __init__(self, folder: Path, done: int, *, owed: bool) -> None:
        super().__init__("tensorboard", logging_dir=folder, purge_step=done + (not owed))
        self.again = _measured_in_training(folder / "metrics.jsonl", done) if owed else {}
        self.done = done

    def start(self) -> None:
        super().start()
        if self.again:
            self.log(self.again, step=self.done)


def _measured_in_training(file: Path, step: int) -> dict[str, float]:
    values: dict[str, float] = {}
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else ():
        with suppress(ValueError):  # a line that a kill has torn
            line = json.loads(text)
            if line["step"] == step and "train/loss" in line:
                values = {name: value for name, value in line.items() if "/" in name and value is not None}
    return values


def start(run: Run, done: int, *, owed: bool = False) -> list[GeneralTracker]:
    """Opens the run's trackers, or goes on with the tracker runs of an earlier start of the same folder.

    Their ids are drawn at random once and kept in RUN/trackers.json, so a new run at an old path is a new one there.

    Args:
        run: the run; its folder is where local trackers write.
        done: steps done; later points of an earlier start are dropped where the tracker can.
        owed: whether the evaluation at `done` comes again, and its points of an earlier start are dropped as well.
    """
    trackers: list[GeneralTracker] = []
    ids = _Ids(run.folder / "trackers.json")
    for name in run.train.trackers:
        match name:
            case "tensorboard":
                tracker: GeneralTracker = _TensorBoard(run.folder, done, owed=owed)
            case "wandb":
                own = ids.of(name, secrets.token_hex(8))
                tracker = WandBTracker(PROJECT, name=run.name, id=own, resume="allow", dir=str(run.folder))
            case "mlflow":
                tracker = _MlFlow(PROJECT, run_name=run.name, run_id=ids.known.get(name))
            case "trackio":
                own = ids.of(name, f"{run.name}-{secrets.token_hex(4)}")
                tracker = TrackioTracker(PROJECT, name=own, resume="allow")
        try:
            tracker.start()
        except ImportError:
            raise ConfigError(
                f"train.trackers names {name}, which is not installed; run `pip install -e '.[{name}]'` in the project"
            ) from None
        if isinstance(tracker, MLflowTracker):  # the server has chosen it
            ids.of(name, tracker.tracker.info.run_id)
        trackers.append(tracker)
    return trackers


class _Ids:
    """Tracker name -> id of the run there, on the disk as soon as it is known."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def of(self, name: str, new: str) -> str:
        if name not in self.known:
            self.known[name] = new
            replace_text(self.file, json.dumps(self.known, indent=1))
        return self.known[name]
