"""Every knob of the project. Frozen; the same object is saved, printed, and compared on resume.

A sentence with the unit stands under every field. `None` is used only where it is a value of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rec.config.evaluation import Eval as Eval
from rec.config.graph_llm import GraphLlm as GraphLlm
from rec.config.ordinary import LightGcn as LightGcn
from rec.config.ordinary import LightGcnPart as LightGcnPart
from rec.config.ordinary import Sasrec as Sasrec
from rec.config.ordinary import require_some_items
from rec.config.parts import Backbone as Backbone
from rec.config.parts import Following as Following
from rec.config.parts import LearnedRelations as LearnedRelations
from rec.config.parts import LossWeights as LossWeights
from rec.config.parts import PaperRelations as PaperRelations
from rec.config.parts import require


@dataclass(frozen=True, kw_only=True)
class SoftToken:
    """The LLM reads [user, item_1 .. item_T] as vectors and its last state is matched against the item table."""

    kind: Literal["soft_token"] = "soft_token"
    """Chooses this recommender."""
    backbone: Backbone = field(default_factory=Backbone)
    """The language model."""
    dim: int = 128
    """Width of the user and item tables."""
    user_token: bool = True
    """Whether the sequence begins with the user's own token; false trains no user table."""
    user_dropout: float = 0.0
    """Probability that a training window hides its user, so that strangers are understood, too."""
    predict_first: bool = False
    """Whether the first item of a window is predicted, too, from the user token alone."""
    dropout: float = 0.0
    """Probability of dropping an element of what the first layer reads and of each residual branch of the backbone."""
    init_std: float = 0.02
    """Standard deviation of the tables' initial normal distribution."""
    shard_tables: bool = False
    """Whether each process keeps some rows of the tables only; changes memory and speed, never the result."""
    item_init: str | None = None
    """Name of a dataset feature (made by `kindling embed`) that the item table starts from; null starts at random."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameter names that are not trained, for example ["backbone.*"]."""
    loss: LossWeights = field(default_factory=LossWeights)
    """The terms of the loss."""
    relations: PaperRelations | LearnedRelations | None = None
    """How tokens are related in the train graph, added to attention; null adds nothing."""
    following: Following | None = None
    """What follows what in the train graph, added to the scores; null adds nothing."""
    gnn: LightGcnPart | None = None
    """A graph network that is trained along, for example {kind: lightgcn}; null is none."""

    @property
    def need_negatives(self) -> bool:
        """Whether the feed has to sample negatives: asked of every recommender, as is `predict_first`."""
        return self.loss.need_negatives or (self.gnn is not None and self.gnn.loss > 0)

    @property
    def needs_graph(self) -> bool:
        """Whether the train graph is read: asked of every recommender."""
        return any(part is not None for part in (self.relations, self.following, self.gnn))

    def __post_init__(self) -> None:
        require(self.dim > 0, f"model.dim is {self.dim}; choose a positive width")
        for name in ("user_dropout", "dropout"):
            require(
                0 <= getattr(self, name) < 1,
                f"model.{name} is {getattr(self, name)}; choose from 0 up to, not including, 1",
            )
        require(
            self.user_token or not self.predict_first,
            "model.predict_first needs model.user_token: set it to true",
        )
        require(
            self.user_token or not self.loss.bpr_user,
            "model.loss.bpr_user needs model.user_token: set it to true",
        )
        weights = ("cross_entropy", "sampled_softmax", "gbce", "bpr_context")
        require(
            any(getattr(self.loss, name) > 0 for name in weights),
            f"model.loss has no term that trains the backbone; set one of {', '.join(weights)}",
        )
        require(self.init_std > 0, f"model.init_std is {self.init_std}; choose a positive standard deviation")
        require(
            self.gnn is None or not self.shard_tables,
            "model.gnn reads whole tables, which model.shard_tables does not keep; set model.shard_tables=false",
        )
        if self.gnn is not None:
            require_some_items("model.gnn.fan_out", self.gnn.fan_out, self.loss)


Model = SoftToken | GraphLlm | Sasrec | LightGcn
"""The recommenders; `kind` chooses one."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a step reads."""

    global_batch: int = 128
    """Training windows per optimizer step, over all processes."""
    micro_batch: int = 32
    """Training windows of one length per forward pass of one process: long ones are fewer, short ones more; changes
    memory and speed, never the result."""
    max_items: int = 50
    """Items in a training window and in the history of a query; longer histories become several windows."""
    negatives: int = 0
    """Sampled items that the positions of a window share."""
    negative_sampling: Literal["uniform", "popularity"] = "uniform"
    """Distribution of the negatives: over the catalogue, or by training interactions."""
    negatives_of: Literal["window", "step"] = "window"
    """window draws them for each window, none among the user's training items; step draws them once for all windows of
    a step, which is several times faster, and leaves out, at each position, only its own target."""
    prefetch: int = 2
    """Steps whose batches are prepared ahead of use, in a thread."""

    def __post_init__(self) -> None:
        for name in ("global_batch", "micro_batch", "max_items"):
            require(getattr(self, name) > 0, f"data.{name} is {getattr(self, name)}; choose a positive number")
        require(self.negatives >= 0, f"data.negatives is {self.negatives}; choose 0 or more")
        require(self.prefetch >= 0, f"data.prefetch is {self.prefetch}; choose 0 or more")
        require(
            self.global_batch % self.micro_batch == 0,
            f"data.global_batch ({self.global_batch}) must be a multiple of data.micro_batch ({self.micro_batch})",
        )


@dataclass(frozen=True, kw_only=True)
class Group:
    """What a group of parameters does differently; null keeps the value of `optim`."""

    lr: float | None = None
    """Peak learning rate of the group."""
    weight_decay: float | None = None
    """Decoupled weight decay of the group."""

    def __post_init__(self) -> None:
        require(self.lr is None or self.lr > 0, f"lr is {self.lr}; choose a positive rate")
        require(
            self.weight_decay is None or self.weight_decay >= 0,
            f"weight_decay is {self.weight_decay}; choose 0 or more",
        )


@dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW and its schedule. The rate is a function of the step; the schedule has no state."""

    lr: float = 1e-3
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the moments."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices; vectors (norms, biases) are never decayed."""
    clip: float = 1.0
    """Global gradient norm above which gradients are scaled down; 0 clips nothing."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the rate after the warm-up, down to `final` at the last step."""
    warmup: int = 0
    """Optimizer steps over which the rate rises from 0 to its peak."""
    final: float = 0.0
    """Rate at the last step, as a share of the peak; of no meaning to `constant`."""
    groups: Mapping[str, Group] = field(default_factory=dict)
    """Parameter-name pattern -> what differs; the first that fits counts. The parts are tables, heads, backbone."""

    def __post_init__(self) -> None:
        require(self.lr > 0, f"optim.lr is {self.lr}; choose a positive rate")
        require(self.warmup >= 0, f"optim.warmup is {self.warmup}; choose 0 or more steps")
        require(self.clip >= 0, f"optim.clip is {self.clip}; choose 0 (off) or a positive norm")
        require(self.eps > 0, f"optim.eps is {self.eps}; choose a positive number")
        require(self.weight_decay >= 0, f"optim.weight_decay is {self.weight_decay}; choose 0 or more")
        require(0 <= self.final <= 1, f"optim.final is {self.final}; choose a share from 0 to 1")
        require(
            all(0 <= beta < 1 for beta in self.betas), f"optim.betas is {self.betas}; choose both from 0 to below 1"
        )


@dataclass(frozen=True, kw_only=True)
class Train:
    """How long, how precise, how often saved."""

    steps: int = 1000
    """Optimizer steps of the whole run."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass; parameters and optimizer stay in fp32. A processor may have to emulate bf16."""
    save_every: int = 500
    """Optimizer steps between checkpoints; the last step is always saved."""
    keep: int = 2
    """Newest checkpoints kept, besides the best one."""
    keep_every: int = 0
    """Checkpoints of steps that this divides are never removed; 0 keeps none for that."""
    log_every: int = 10
    """Optimizer steps between lines of metrics.jsonl."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ("tensorboard",)
    """Where measurements go besides metrics.jsonl, which is always written."""
    resume: Literal["auto", "never"] = "auto"
    """auto goes on from the newest checkpoint of the run folder; never refuses a folder that has one."""
    hang_after: float = 600
    """Seconds that one rank may keep the others waiting before the run ends with an error."""
    grace: float = 100.0
    """Seconds from a signal to the end, whatever the run is doing then."""
    skip_limit: int = 10
    """Steps in a row that are left out, since loss or gradient is not finite, before the run stops."""
    rollbacks: int = 0
    """Times that the run does not stop then, but takes back parameters of before and goes on with the data after."""

    def __post_init__(self) -> None:
        for name in ("steps", "save_every", "keep", "log_every", "hang_after", "grace", "skip_limit"):
            require(getattr(self, name) > 0, f"train.{name} is {getattr(self, name)}; choose a positive number")
        for name in ("rollbacks", "keep_every"):
            require(getattr(self, name) >= 0, f"train.{name} is {getattr(self, name)}; choose 0 or more")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run."""

    name: str
    """Names the run; its folder is `out`/`name`."""
    dataset: Path
    """Folder of a prepared dataset."""
    model: Model
    """The recommender, chosen by `kind`."""
    data: Data = field(default_factory=Data)
    """What a step reads."""
    optim: Optim = field(default_factory=Optim)
    """The optimizer and its schedule."""
    train: Train = field(default_factory=Train)
    """How long, how precise, how often saved."""
    eval: Eval = field(default_factory=Eval)
    """Evaluation while training."""
    seed: int = 0
    """Seed of everything random: initial weights, order, negatives, dropout."""
    out: Path = Path("runs")
    """Folder that holds the run folders."""
    init_from: Path | None = None
    """Folder of an earlier run on the same dataset, whose best model's weights this one starts from."""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, f"seed is {self.seed}; choose a whole number from 0 to below 2^63")
        one_part = len(Path(self.name).parts) == 1 and self.name != ".."
        require(one_part, f"name is '{self.name}'; choose one word for a folder (`out` says where it lies)")
        require(
            not self.model.need_negatives or self.data.negatives > 0,
            "model.loss or model.gnn.loss has a term over negatives but data.negatives is 0; "
            "set data.negatives, for example to 256",
        )
        following = getattr(self.model, "following", None)
        longest = max(self.data.max_items, Following.window)  # of shorter histories the default takes what there is
        require(
            following is None or following.window <= longest,
            f"model.following.window is {following and following.window}, but a history has data.max_items = "
            f"{self.data.max_items} items at most, and the others are never looked at; set it to {longest} or less",
        )

    @property
    def folder(self) -> Path:
        return self.out / self.name
