"""A run and its folder: what is written at the start, what is restored, what is saved."""

import dataclasses
import json
import sys
import uuid
from pathlib import Path
from typing import Any, Self

from rec.config.load import dump, to_values
from rec.config.tree import Run
from rec.data.dataset import Dataset
from rec.errors import CheckpointError, ConfigError
from rec.files import replace_text
from rec.models.base import Recommender
from rec.models.saved import publish, published_digest
from rec.ranks import Ranks, beside
from rec.train import random
from rec.train.background import Background
from rec.train.checkpoint import Checkpoints, damage, digest_of, require_same
from rec.train.checksum import Facts, facts_of
from rec.train.identity import changes, identity, top_of_graph, versions
from rec.train.pieces import Part, Parts, copy, file_of, write
from rec.train.progress import Progress
from rec.train.status import Status
from rec.train.strategies.engine import Engine

PATIENCE = 6
"""How many times longer than in training a rank may keep the others waiting in a save: disks are slow, and uneven."""


class Keeper:
    """Keeps one run: restores it, saves it, publishes its best model.

    Every rank writes its part; the first rank does what is to be done once. All of a save but a copy of the state
    happens beside training, in a thread in which the ranks talk over a group of their own.
    """

    def __init__(self, run: Run, dataset: Dataset, ranks: Ranks, status: Status) -> None:
        self.run, self.dataset, self.ranks, self.status = run, dataset, ranks, status
        self.identity = ranks.together(lambda: identity(run, dataset))
        self.top = top_of_graph(run, dataset)
        self.checkpoints = Checkpoints(run.folder / "checkpoints", keep=run.train.keep, keep_every=run.train.keep_every)
        status.running()
        require_shared(run.folder, ranks)
        self.newest = self.checkpoints.newest(tell, ranks)
        ranks.first_only(self._begin)
        self.aside = beside(ranks, PATIENCE * run.train.hang_after)
        self.background = Background()
        self.part: Part | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """What is under way gets to the disk; after an error as far as that is possible, and without hiding it."""
        if error is None:
            self.wait()
        elif (second := self.background.finish(self.run.train.hang_after)) is not None:
            error.add_note(f"and the save that was under way has failed: {second}")

    def restore(self, engine: Engine) -> Progress:
        """Puts the newest checkpoint into the engine; a fresh start where there is none."""
        if self.newest is None:
            return Progress()
        progress = self._read(self.newest, engine)
        self.background.start(lambda: self._settle(engine.bare, progress))
        return progress

    def take_back(self, engine: Engine, *, before: int) -> int | None:
        """Puts parameters and moments of the newest checkpoint of a step before `before` into the engine.

        Returns:
            The step that had changed them last; None if no such checkpoint is whole, and nothing is changed.
        """
        self.wait()
        older = self.checkpoints.newest(tell, self.ranks, before=before)
        return None if older is None else self._read(older, engine).changed

    def _read(self, folder: Path, engine: Engine) -> Progress:
        state = self.ranks.together(lambda: self._fill(folder, engine))
        engine.settle()
        return Progress(**state["progress"])

    def _fill(self, folder: Path, engine: Engine) -> dict[str, Any]:
        """This rank's share of everything saved; what was saved of the run itself."""
        parts, state = Parts(folder), json.loads((folder / "state.json").read_text())
        engine.restore(parts)
        engine.restore_scaler(state["scaler"])
        numbers = parts.random(self.ranks.rank, self.ranks.world)
        if numbers is not None:
            random.restore(numbers)
        else:  # written by another number of ranks, which have no state for each of these
            random.seed(hash((self.run.seed, state["progress"]["step"], self.ranks.rank)))
        return dict(state)

    def save(self, engine: Engine, progress: Progress, *, best: bool) -> None:
        """Copies the state, and begins to commit it as a checkpoint, and as the run's model if it is the best.

        Raises:
            CheckpointError: if the save before this one has failed.
        """
        self.wait()
        self.part, numbers = copy(engine.pieces(), self.part), random.state()
        part = self.part
        state = {
            "progress": dataclasses.asdict(progress),
            "scaler": engine.scaler(),
            "identity": self.identity,
            "graph_top": self.top,
            "run": to_values(self.run),
            "ranks": self.ranks.world,
        }
        self.background.start(lambda: self._commit(engine.bare, part, numbers, state, best))

    def wait(self) -> None:
        """Until everything is on the disk, on all ranks.

        Raises:
            CheckpointError: on all of them, if it cannot be.
        """
        self.ranks.together(self.background.wait)

    @property
    def failed(self) -> bool:
        """Whether a save has failed, on any rank: no later one is worth training for."""
        return self.background.failed

    def _commit(
        self, model: Recommender, part: Part, numbers: dict[str, Any], state: dict[str, Any], best: bool
    ) -> None:
        """On every rank, beside training: a part each, then what the first rank makes of all parts."""
        progress = Progress(**state["progress"])
        name = file_of(self.ranks.rank, self.ranks.world)
        try:
            folder = self.aside.first_only(lambda: self._begin_save(progress.step, state))
            mine = self.aside.together(lambda: write(folder / name, part, numbers))
            files = {name: facts for some in self.aside.gather({name: mine}) for name, facts in some.items()}
            self.aside.first_only(lambda: self._finish_save(progress.step, files, best))
        except Exception as error:  # on all ranks, since each of the above ends alike on all
            self.aside.first_only(lambda: self.checkpoints.abandon(progress.step))
            if not isinstance(error, OSError):
                raise
            raise CheckpointError(
                f"cannot save {self.checkpoints.folder(progress.step)}: {error.strerror or error}; earlier checkpoints "
                "are intact: make room and start again"
            ) from error
        self._settle(model, progress)
        if self.ranks.first:
            self.status.running(progress.step)
            self.checkpoints.prune()

    def _begin_save(self, step: int, state: dict[str, Any]) -> Path:
        folder = self.checkpoints.begin(step)
        (folder / "state.json").write_text(json.dumps(state, indent=1))
        return folder

    def _finish_save(self, step: int, files: dict[str, Facts], best: bool) -> None:
        state = self.checkpoints.folder(step).with_suffix(".tmp") / "state.json"
        self.checkpoints.commit(step, {**files, state.name: facts_of(state)}, best=best)

    def _settle(self, model: Recommender, progress: Progress) -> None:
        """Makes the mark of the best checkpoint and `RUN/model` what the newest checkpoint says, if they are not.

        They follow a commit, on the first rank and in its own time; a run that was killed in between settles them when
        it goes on.
        """
        best = self.checkpoints.folder(progress.best_step)
        if not self.ranks.first or progress.best is None or not best.is_dir():
            return
        if self.checkpoints.best() != best:
            self.checkpoints.mark_best(progress.best_step)
        if published_digest(self.run) == digest_of(best):
            return
        fault = damage(best)
        if fault is not None:
            tell(f"{best} is damaged ({fault}) and is not published as the best model")
            return
        about = {
            "step": progress.best_step,
            self.run.eval.select: progress.best,
            "sha256": digest_of(best),
            "graph": self.identity.get("graph fingerprint"),
        }
        publish(self.run.folder / "model", self.run, model, Parts(best).export, self.dataset, about)

    def _begin(self) -> None:
        """Checks the run against what is there, and writes down what runs, with which versions."""
        folder, newest = self.run.folder, self.newest
        if newest is not None:
            if self.run.train.resume == "never":
                raise CheckpointError(f"train.resume is never, but {folder} has checkpoints; choose another name=...")
            state = json.loads((newest / "state.json").read_text())
            top = state.get("graph_top")  # which earlier versions did not write
            again = "" if top in (None, self.top) else f"kindling graph {self.run.dataset} --top {top}"
            require_same(state["identity"], self.identity, newest, again)
            for change in changes(state["run"], to_values(self.run)):
                tell(change)
        replace_text(folder / "run.yaml", dump(self.run))
        replace_text(folder / "versions.json", json.dumps(versions(), indent=1))


def tell(text: str) -> None:
    """Says what a person should know, beside the measurements."""
    print(text, file=sys.stderr, flush=True)


def require_shared(folder: Path, ranks: Ranks) -> None:
    """Raises ConfigError unless all ranks see what the first one writes into the run folder."""
    word = folder / f"seen-by-all-{uuid.uuid4().hex}"
    word = ranks.first_only(lambda: word)
    ranks.first_only(word.touch)

    def look() -> None:
        if not word.is_file():
            raise ConfigError(
                f"{folder} is not the same folder on every machine; the run folder must lie on a disk that all of them "
                "share: set out=..."
            )

    try:
        ranks.together(look)
    finally:
        if ranks.first:
            word.unlink()
