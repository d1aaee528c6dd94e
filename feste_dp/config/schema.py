"""The config: every key with its default, its range and one sentence. Reads no file and no environment.

A section is a frozen pydantic model. Types are strict ("3" is not 3, true is not 1; a whole number may stand
for a float). Rules that hold between keys are in one function, `cross_field_problems`; values that follow
from others are properties.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from feste_dp.config.expectations import either
from feste_dp.config.worker_counts import settings_for, too_many_workers

MAX_SHARDS = 256
MAX_CPU = 8191
MAX_FILES, MAX_NAME, MAX_PROJECT, MAX_TAGS, MAX_TAG = 1000, 64, 128, 64, 64
WARMUP_SHARE, MOST_WARMUP_STEPS = 20, 2000

PathText = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]
PathTexts = Annotated[list[PathText], Field(min_length=1, max_length=MAX_FILES)]
RANDOM = "random"
InitResize = Literal["context", "vocabulary"]
Precision = Literal["fp32", "bf16"]


def _listed(value: object) -> object:
    """One text where a list of them is meant."""
    return [value] if isinstance(value, str) else value


TrackerName = Literal["jsonl", "tensorboard", "wandb"]
Trackers = Annotated[list[TrackerName], Field(max_length=len(get_args(TrackerName)))]
TrackerNames = Annotated[Trackers, BeforeValidator(_listed, json_schema_input_type=TrackerName | Trackers)]
# what Weights & Biases itself takes
ProjectName = Annotated[str, Field(max_length=MAX_PROJECT, pattern=r"^[^/\\#?%:\x00-\x1f]*$")]
Tag = Annotated[str, Field(min_length=1, max_length=MAX_TAG, pattern=r"^[^\x00-\x1f]+$")]
TagList = Annotated[list[Tag], Field(max_length=MAX_TAGS)]
Tags = Annotated[TagList, BeforeValidator(_listed, json_schema_input_type=Tag | TagList)]
ResizeList = Annotated[list[InitResize], Field(max_length=len(get_args(InitResize)))]
InitResizes = Annotated[ResizeList, BeforeValidator(_listed, json_schema_input_type=InitResize | ResizeList)]
CpuNumbers = Annotated[list[Annotated[int, Field(ge=0, le=MAX_CPU)]], Field(min_length=1)]


class Section(BaseModel):
    """A frozen group of keys; an unknown key is refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelConfig(Section):
    """The size and shape of the network."""

    vocab_size: int = Field(default=1024, ge=256, le=2**32)
    """Tokens in the vocabulary; byte-level BPE needs at least the 256 bytes."""
    block_size: int = Field(default=128, ge=1, le=65536)
    """Longest sequence the model sees, in tokens; also the length of a training sequence."""
    n_layer: int = Field(default=4, ge=1, le=1024)
    """Transformer blocks."""
    n_head: int = Field(default=4, ge=1, le=1024)
    """Attention heads per block; must divide n_embd."""
    n_embd: int = Field(default=128, ge=1, le=65536)
    """Width of the residual stream, in floats per token."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Probability of dropping a value after the attention projection and after the MLP, in training only."""
    tie_embeddings: bool = Field(default=True)
    """Whether the output head is the token embedding (true, as in GPT-2) or a matrix of its own."""
    n_inner: int = Field(default=0, ge=0, le=2**20)
    """Width of the MLP, in floats per token; 0 = 4 n_embd, as in GPT-2."""
    init: PathText = Field(
        default=RANDOM,
        json_schema_extra={"expected": "random, or a run, a checkpoint or a Hugging Face directory"},
    )
    """Weights to start from: random, or the path of a run, a checkpoint or a Hugging Face directory."""
    init_resize: InitResizes = Field(
        default_factory=list, json_schema_extra={"expected": "context or vocabulary, or a list of them"}
    )
    """What may differ from model.init: context cuts or grows the positions, vocabulary adds rows."""

    @property
    def mlp_width(self) -> int:
        """n_inner, or what it stands for."""
        return self.n_inner or 4 * self.n_embd


class DataConfig(Section):
    """The text to learn from."""

    corpus: PathText | PathTexts = Field(
        default="shakespeare",
        json_schema_extra={
            "expected": f"shakespeare, a directory, or a list of at most {MAX_FILES} text files"
        },
    )
    """Text to train on: shakespeare (embedded), a folder of .txt files or of tokens, or UTF-8 text files."""
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the text, in characters from its end, held out for validation, from the start of a line."""


class TrainConfig(Section):
    """How much is trained, and how a step is cut into work."""

    steps: int = Field(default=1000, ge=1, le=10**9)
    """Optimizer steps in the whole run."""
    batch_size: int = Field(default=16, ge=1, le=2**20)
    """Sequences in a step, over all workers; must be divisible by shards."""
    shards: int = Field(default=8, ge=1, le=MAX_SHARDS)
    """Equal parts of a batch, the unit of work; a power of two, and the most workers a run can use."""
    micro_batch: int = Field(default=1, ge=1, le=2**20)
    """Sequences per forward and backward call; must divide batch_size / shards."""
    seed: int = Field(default=1, ge=0, le=2**63 - 1)
    """Seed of the initial weights, the data order and dropout."""
    precision: Precision = Field(default="fp32")
    """Type of the operands of matrix products; bf16 is faster where the CPU has it; all else is float32."""

    @property
    def sequences_per_shard(self) -> int:
        """Sequences of one step that fall to one shard."""
        return self.batch_size // self.shards


class OptimConfig(Section):
    """AdamW, gradient clipping and the learning rate over time."""

    lr: float = Field(default=1e-3, gt=0, le=10)
    """Peak learning rate, reached at the end of the warm-up."""
    min_lr: float = Field(default=0.0, ge=0, le=10)
    """Learning rate at the last step; at most lr."""
    warmup_steps: int = Field(default=0, ge=0, le=10**9)
    """Steps of linear warm-up from 0 to lr; by default a twentieth of train.steps, at most 2000."""
    schedule: Literal["cosine", "linear", "constant"] = Field(default="cosine")
    """Shape of the decay from lr to min_lr after the warm-up; constant stays at lr."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay per step of the running mean of the gradient."""
    beta2: float = Field(default=0.98, ge=0, lt=1)
    """Decay per step of the running mean of the squared gradient."""
    eps: float = Field(default=1e-8, gt=0, le=1)
    """Added to the denominator of the update."""
    weight_decay: float = Field(default=0.1, ge=0, le=10)
    """Decoupled decay of matrices and embeddings, in units of the learning rate."""
    clip_norm: float = Field(default=1.0, ge=0, le=10**9)
    """Largest global norm of the gradient, scaled down to it if above; 0 = no clipping."""


class EvalConfig(Section):
    """Validation on held-out text."""

    every: int = Field(default=50, ge=0, le=10**9)
    """Steps between evaluations; 0 = never."""
    batches: int = Field(default=8, ge=1, le=10**6)
    """Batches of train.batch_size sequences in an evaluation, the same ones each time."""
    patience: int = Field(default=0, ge=0, le=10**9)
    """Evaluations without improvement after which training stops; 0 = never stop early."""


class SampleConfig(Section):
    """Text drawn from the model while it trains."""

    every: int = Field(default=200, ge=0, le=10**9)
    """Steps between samples; 0 = never."""
    prompt: str = Field(default="", max_length=4096)
    """Text that a sample continues; empty = the first words of the training text (of the plays: HAMLET.)."""
    tokens: int = Field(default=100, ge=1, le=65536)
    """Tokens drawn for a sample."""
    temperature: float = Field(default=0.8, ge=0, le=100)
    """Divides the logits before sampling; 0 = always the likeliest token."""


class CheckpointConfig(Section):
    """When the state of a run is saved, and how much of it is kept."""

    every: int = Field(default=200, ge=0, le=10**9)
    """Steps between periodic checkpoints; 0 = only the best and the final one."""
    keep: int = Field(default=3, ge=1, le=10**6)
    """Newest periodic checkpoints kept beside the best and the final one."""


class RunConfig(Section):
    """Where a run is written and which processes it may use; never changes the result."""

    name: str = Field(
        default="run",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$",
        max_length=MAX_NAME,
        json_schema_extra={
            "expected": f"at most {MAX_NAME} letters, digits, '.', '_' or '-', the first not '.' or '-'"
        },
    )
    """First part of the name of the run directory; the UTC time of the start follows."""
    dir: PathText = Field(default="data/runs", json_schema_extra={"expected": "the path of a directory"})
    """Directory that holds the run directories."""
    workers: int = Field(default=0, ge=0, le=MAX_SHARDS)
    """Worker processes, at most train.shards; 0 = one per usable core, capped at train.shards."""
    pin: Literal["none", "auto"] | CpuNumbers = Field(
        default="none",
        json_schema_extra={"expected": f"none, auto, or a list of CPU numbers from 0 to {MAX_CPU}"},
    )
    """CPUs the workers are bound to: none, auto (distinct physical cores), or a list of CPU numbers."""
    step_timeout_s: float = Field(default=600.0, gt=0, le=10**6)
    """Seconds after which a worker that reports nothing is held to be stuck."""
    on_nonfinite: Literal["stop", "skip"] = Field(default="stop")
    """What a NaN or infinity in a gradient does: stop the run, or skip the update of that step."""
    trackers: TrackerNames = Field(
        default_factory=list,
        json_schema_extra={"expected": f"{either(get_args(TrackerName))}, or a list of them"},
    )
    """Where else the figures go, beside metrics.csv: any of jsonl, tensorboard (TensorBoard), wandb (W&B)."""
    wandb_project: ProjectName = Field(
        default="",
        json_schema_extra={"expected": f"at most {MAX_PROJECT} characters, none of them one of / \\ # ? % :"},
    )
    """Project of W&B that the run belongs to; empty = what WANDB_PROJECT says, else feste-dp."""
    wandb_tags: Tags = Field(
        default_factory=list,
        json_schema_extra={
            "expected": f"a tag of 1 to {MAX_TAG} characters, or a list of at most {MAX_TAGS}"
        },
    )
    """Tags of the run in W&B; empty = what WANDB_TAGS says."""


class Config(Section):
    """All that a run is told."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    optim: OptimConfig = OptimConfig()
    eval: EvalConfig = EvalConfig()
    sample: SampleConfig = SampleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    run: RunConfig = RunConfig()

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a global batch."""
        return self.train.batch_size * self.model.block_size

    @property
    def total_tokens(self) -> int:
        """Tokens in the whole run."""
        return self.tokens_per_step * self.train.steps

    @model_validator(mode="before")
    @classmethod
    def _warm_up(cls, given: Any) -> Any:
        """A default that depends on another section; the config of a run has it as a number."""
        if not isinstance(given, dict) or not isinstance(optim := given.get("optim", {}), dict):
            return given
        train = given.get("train", {})
        steps = train.get("steps", TrainConfig().steps) if isinstance(train, dict) else train.steps
        if "warmup_steps" in optim or type(steps) is not int:
            return given
        derived = min(max(0, steps) // WARMUP_SHARE, MOST_WARMUP_STEPS)
        return given | {"optim": optim | {"warmup_steps": derived}}

    @model_validator(mode="after")
    def _check_across_fields(self) -> Self:
        problems = list(cross_field_problems(self))
        if problems:
            message = "; ".join(f"{problem.keys[0]}: {problem.message}" for problem in problems)
            raise PydanticCustomError("cross_field", "{message}", {"message": message, "problems": problems})
        return self


class CrossFieldProblem(NamedTuple):
    """The keys that do not fit together, the one to change first in front, and why."""

    keys: tuple[str, ...]
    message: str
    settings: Mapping[str, object] = {}
    """Keys and values that would do."""


def cross_field_problems(config: Config) -> Iterator[CrossFieldProblem]:
    """Every rule between keys that the config breaks."""
    model, train, optim, run = config.model, config.train, config.optim, config.run
    if model.n_embd % model.n_head:
        below = model.n_embd - model.n_embd % model.n_head
        fits = [n for n in (below, below + model.n_head) if n]
        yield CrossFieldProblem(
            ("model.n_embd", "model.n_head"),
            f"{model.n_embd} is not divisible by model.n_head {model.n_head}; use n_embd {either(fits)}",
        )
    if train.shards & (train.shards - 1):
        below = 1 << (train.shards.bit_length() - 1)
        yield CrossFieldProblem(
            ("train.shards",), f"{train.shards} is not a power of two; use {below} or {2 * below}"
        )
    elif train.batch_size % train.shards:
        below = train.batch_size - train.batch_size % train.shards
        fits = [n for n in (below, below + train.shards) if n]
        counts = [n for n in _divisors(train.batch_size) if n <= MAX_SHARDS and n & (n - 1) == 0]
        yield CrossFieldProblem(
            ("train.batch_size", "train.shards"),
            f"{train.batch_size} is not divisible by train.shards {train.shards}; "
            f"use batch_size {either(fits)}, or shards {either(counts)}",
        )
    elif train.sequences_per_shard % train.micro_batch:
        yield CrossFieldProblem(
            ("train.micro_batch", "train.batch_size", "train.shards"),
            f"{train.micro_batch} does not divide train.batch_size / train.shards = {train.batch_size} / "
            f"{train.shards} = {train.sequences_per_shard}; "
            f"use {either(_divisors(train.sequences_per_shard))}",
        )
    if run.workers > train.shards:
        yield CrossFieldProblem(
            ("run.workers", "train.shards"),
            too_many_workers(run.workers, train),
            settings_for(run.workers, train),
        )
    if optim.min_lr > optim.lr:
        yield CrossFieldProblem(
            ("optim.min_lr", "optim.lr"),
            f"{optim.min_lr!r} is above optim.lr {optim.lr!r}; lower one, raise the other",
        )


def sections() -> dict[str, type[Section]]:
    """The model of each section by name, in the order of the schema."""
    return {name: type(section) for name, section in Config()}


def known_keys() -> tuple[str, ...]:
    """Every key as `section.key`, in the order of the schema."""
    return tuple(f"{name}.{key}" for name, model in sections().items() for key in model.model_fields)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
