"""The settings of a run. Each recipe's config extends `RunConfig`; the field docstrings are the manual."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from realrl.api.cluster import RayConfig, SlurmConfig
from realrl.base.require import require, require_at_least, require_at_most, require_not_negative

AUTO: Final = "auto"
"""The value of a setting that is chosen for the machine at hand."""
_MOST_NAME_BYTES = 100
"""Names of runs become folder names, which file systems limit to 255 bytes."""


def _is_folder_name(text: str) -> bool:
    """Return whether `text` can name a folder on every file system."""
    if not text.isprintable() or "/" in text:
        return False
    if text in ("", ".", ".."):
        return False
    return len(text.encode()) <= _MOST_NAME_BYTES


class FixedKey(NamedTuple):
    """A key that a section does not have, because its algorithm fixes what it would set."""

    values: tuple[object, ...]
    """The values that say what the algorithm does; the first is the most explicit one."""
    instead: str
    """What to do for another value."""


class Section:
    """A section of a config that knows keys which it does not have."""

    FIXED = MappingProxyType[str, FixedKey]({})
    """By key. One with a value that is fixed may be given; another value is refused with what to do."""

    def __post_init__(self) -> None:
        """End the chain of checks of a section that is put together from parts."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model, its data types, and where its weights are kept."""

    path: str = ""
    """The model: a Hugging Face model directory; a model of the Hugging Face Hub, `OWNER/NAME[@REVISION]`
    (unless a directory has that name); or `smollm2-135m-instruct`, the demo model. Required."""
    commit: str | None = None
    """The commit of a model of the Hub. Left out: the commit of its revision when the run starts, which is
    recorded in the run's `config.yaml` and kept by a resume."""
    family: str | None = None
    """A model family of your own, as `path/to/file.py:NAME`. Left out: it follows from `model_type` in the
    model's `config.json`."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of weights and activations; the optimizer keeps float32 masters."""
    replica_dtype: Literal["float32", "bfloat16"] | None = None
    """Type of the model's replicas on other placements; weights are cast when they are sent. Left out: the
    same as `dtype`."""
    keep_replicas: bool = False
    """Keep the memory of replicas between their calls, and their weights as long as they are current."""
    offload: bool = False
    """Between calls, keep the weights in host memory only; in training, the optimizer's states too."""

    @property
    def away_dtype(self) -> str:
        """The type of the model's replicas."""
        return self.replica_dtype or self.dtype


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    lr: float = 1e-5
    """Peak learning rate."""
    beta1: float = 0.9
    """Decay rate of the first moment."""
    beta2: float = 0.95
    """Decay rate of the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """Weight decay of matrices; norms and biases have none."""
    warmup_steps: int = 0
    """Optimizer steps of linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate decays from the end of the warm-up to the last step of the run."""
    min_lr_ratio: float = 0.0
    """Learning rate at the end of the run, as a fraction of the peak."""
    clip_grad_norm: float = 1.0
    """Clip the global norm of the gradient to this value (0: no clipping)."""
    offload: bool = False
    """Keep masters and moments in host memory, and update them there. For device: cuda."""

    def __post_init__(self) -> None:
        require_not_negative(self, "lr", "weight_decay", "clip_grad_norm", "warmup_steps")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} must be in [0, 1), got {value}")
        require(self.eps > 0, f"eps must be positive, got {self.eps}")
        require(
            0 <= self.min_lr_ratio <= 1,
            f"min_lr_ratio must be from 0 to 1, got {self.min_lr_ratio}",
        )


@dataclass(frozen=True, kw_only=True)
class TrainedModelConfig:
    """A model and how it is trained."""

    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How responses are sampled, and by which engine."""

    engine: Literal["realrl", "vllm"] = "realrl"
    """The engine that generates: realrl's own, or vLLM, which receives the weights whenever they changed."""
    max_new_tokens: int = 1024
    """Most tokens of a response. The run warns if many responses reach this limit."""
    min_new_tokens: int = 0
    """No end-of-sequence token before this many tokens."""
    temperature: float = 1.0
    """Sampling temperature, at least 0.01 because logits are divided by it; 0 takes the most likely token."""
    top_p: float = 1.0
    """Sample from the most likely tokens whose probabilities add up to this (1: from all tokens)."""
    top_k: int = 0
    """Sample from this many most likely tokens (0: from all tokens)."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end a response, in addition to the model's end-of-sequence tokens."""
    stop: tuple[str, ...] = ()
    """Strings that end a response as soon as its text contains one of them."""
    max_sequences: int = 256
    """Sequences decoded at the same time on one data-parallel rank."""
    cache_mib: int = 0
    """Memory limit of the key/value cache on one rank, in MiB (0: what all sequences need, as far as the
    device has it)."""
    interruptible: bool = False
    """With `max_staleness`, apply new weights to responses that are being generated: these stop between two
    tokens, take the weights and resume. Responses are fresher, but the run is not reproducible, because the
    moment depends on speed."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "max_new_tokens", "max_sequences")
        require(
            0 <= self.min_new_tokens <= self.max_new_tokens,
            f"min_new_tokens must be from 0 to max_new_tokens, got {self.min_new_tokens}",
        )
        require(
            self.temperature == 0 or self.temperature >= 0.01,
            f"temperature must be 0 or at least 0.01, got {self.temperature}",
        )
        require(
            0 < self.top_p <= 1,
            f"top_p must be in (0, 1], got {self.top_p}",
        )
        require_not_negative(self, "top_k", "cache_mib")
        require_at_most(self, 2**24, "max_new_tokens", "max_sequences", "cache_mib")

    def greedy(self) -> GenerationConfig:
        """Return the same settings, but always taking the most likely token."""
        return replace(
            self,
            temperature=0.0,
            top_p=1.0,
            top_k=0,
        )

    @property
    def training_temperature(self) -> float:
        """The temperature of log-probabilities in training: that of sampling, or 1 where it is greedy."""
        return self.temperature or 1.0


@dataclass(frozen=True, kw_only=True)
class PlacementConfig:
    """The mesh and layout of one call."""

    ranks: tuple[int, ...]
    """Ranks of the mesh, in ascending order."""
    pp: int = 1
    """Pipeline stages."""
    dp: int = 1
    """Data-parallel replicas."""
    tp: int = 1
    """Tensor-parallel shards."""
    vp: int = 1
    """Model chunks per pipeline stage."""


LoggerName = Literal["tensorboard", "wandb", "mlflow", "trackio", "swanlab"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings that every recipe has."""

    experiment: str
    """Name of the experiment: outputs go to `runs_dir/experiment/trial`."""
    trial: str = "trial"
    """Name of this run of the experiment."""
    runs_dir: str = "runs"
    """Folder of all runs."""
    seed: int = 1
    """Seed of all random numbers of the run."""
    batch_size: int = 8
    """Prompts (or examples) per step."""
    max_tokens_per_microbatch: int = 0
    """Token budget of one forward and backward pass (0: what the device's memory allows)."""
    deterministic: bool = False
    """On CPUs: use products of one shape only, so that generation and training compute the same
    log-probability of a token, bit for bit, if both have the same `t`. On CUDA: use only kernels with a fixed
    order of summation, so that a run that is repeated or resumed on the same plan and devices gives the same
    bits; the two log-probabilities still differ by rounding. Slower."""
    allocation: str = AUTO
    """Layouts of calls, as `actor_gen:d2,*:p2`, or disjoint meshes, as `gen.d2+p2`. `auto` uses every device
    of this host, with as little model parallelism as memory allows, and reports its choice; on a CPU it uses
    one rank."""
    placements: dict[str, PlacementConfig] = field(default_factory=dict)
    """Mesh and layout of single calls, by name; these override `allocation`."""
    device: Literal["auto", "cpu", "cuda"] = AUTO
    """Device of the models; `auto` is `cuda` on a cluster or if this host has a CUDA device, else `cpu`."""
    staging_mib: int = 256
    """Memory limit of one rank's buffers for weights and batches that move, in MiB."""
    transport: str = AUTO
    """What carries the messages of weights and batches that move: `auto`; `shared_memory`, between the ranks
    of a host (gloo between hosts), for `device: cpu`; `collective`, gloo or NCCL; or a transport of your own,
    as `path/to/file.py:NAME`. `auto` is `shared_memory` on CPUs and `collective` on CUDA."""
    checksums: bool = True
    """Check every message in which weights and batches move; a corrupted byte ends the run."""
    call_timeout_s: float = 1800.0
    """A call that makes no progress for this many seconds has failed; `hang.txt` then says what it waited
    for. Tokens, micro-batches and answers count as progress; a set-up, a transfer or a rank's save must end
    within this time."""
    recover: Literal["auto", "off"] = "auto"
    """`auto` resumes an interrupted run of this name. A training resumes from its newest complete recovery
    point (`recover_every`); on the same plan the result is the same to the bit (on CUDA with
    `deterministic`). A pass over data resumes after its last complete batch. A finished run has nothing to
    do, unless `num_steps` was raised and it left a recovery point. Settings, rows and models that earlier
    results depend on must be the same, but may be in another place. If there are recovery points and none is
    complete, the run stops and asks. `off` starts from scratch, and renames the earlier run to TRIAL.N."""
    restarts: int = 3
    """Restart a failed run, as after a worker died, up to this many times; a training needs `recover_every`.
    The same failure twice at the same place ends the run."""
    logger: tuple[LoggerName, ...] = ("tensorboard",)
    """Where metrics go in addition to `metrics.jsonl`, as `[tensorboard, wandb]`; all but TensorBoard are
    extras: `pip install 'realrl[wandb]'`. Their files go to the run's directory unless their own environment
    variables name another one. A slow or failing logger does not delay the run; the metrics that it loses are
    counted and reported."""
    sigterm_grace_s: float = 20.0
    """Seconds that a training with `recover_every` may take after SIGTERM to finish the current update and
    write a recovery point; responses for the next update are discarded. 0 stops at once. By default SLURM and
    Kubernetes kill after 30 s."""
    mode: Literal["local", "ray", "slurm"] = "local"
    """Where workers run: on this host, on a Ray cluster, or on nodes that SLURM allocates. The nodes of a
    cluster need a shared file system."""
    launcher: str | None = None
    """A launcher of your own, as `path/to/file.py:NAME`, which starts the workers in place of `mode`'s. It is
    called with the config and the number of workers. `allocation` and `device` must be given."""
    devices_per_node: int = 8
    """Workers on each node of a cluster; ranks fill one node after another."""
    cpus_per_worker: int = 4
    """CPU cores of each worker on a cluster; on this host, workers share all cores."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    @property
    def uses_this_host(self) -> bool:
        """Whether workers run on this host, so that its devices can be looked at before a start."""
        return self.mode == "local" and self.launcher is None

    def __post_init__(self) -> None:
        require_at_least(self, 1, "batch_size", "staging_mib", "devices_per_node", "cpus_per_worker")
        require_not_negative(self, "max_tokens_per_microbatch")
        for name in ("experiment", "trial"):
            value = getattr(self, name)
            require(
                _is_folder_name(value),
                f"{name} must be a plain folder name of at most {_MOST_NAME_BYTES} bytes, got"
                f" {reprlib.repr(value)}",
            )
        require(
            len(set(self.logger)) == len(self.logger),
            f"logger: expected each name at most once, got {', '.join(self.logger)}",
        )
        require(
            self.launcher is None or self.mode == "local",
            f"launcher: a launcher of your own replaces mode={self.mode}; leave one of them out",
        )
        require_not_negative(self, "restarts", "sigterm_grace_s")
        require(
            self.call_timeout_s > 0,
            f"call_timeout_s must be positive, got {self.call_timeout_s}",
        )
        # Larger numbers overflow in timers, file names or tensors.
        require_at_most(self, 2**18, "batch_size")
        require_at_most(self, 2**24, "staging_mib")
        require_at_most(self, 10**9, "call_timeout_s", "devices_per_node", "cpus_per_worker")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(RunConfig):
    """The settings of every recipe that trains."""

    num_steps: int = 0
    """Training steps (0: `num_epochs` passes over the rows)."""
    num_epochs: int = 0
    """Passes over the rows, in place of `num_steps` (0: one, if `num_steps` is 0 too). A run records them as
    `num_steps`."""
    max_staleness: int = 0
    """How many training steps old the weights may be that generate a step's responses. With 1, the next
    step's responses are generated during this step's training, on other ranks. A larger value is faster only
    with `generation.interruptible`, because one copy of the weights has one version."""
    eval_every: int = 0
    """Evaluate every N steps (0: only at the start and the end)."""
    eval_at_start: bool = True
    """Evaluate before the first step, too."""
    save_every: int = 0
    """Write a Hugging Face checkpoint every N steps (0: only at the end)."""
    recover_every: int = 0
    """Write a recovery point every N steps and at the end (0: never). It holds masters, moments, changed
    weights and the memory of calls, 12 bytes per trained weight. It is copied at once and written during the
    next step. With `max_staleness`, responses are generated ahead again only after the point, so that no
    unfinished response is lost."""
    keep_recoveries: int = 2
    """Recovery points to keep. After the end of the run the last one stays, from which a higher `num_steps`
    resumes; its folder may be deleted by hand. A point that fails a check is kept and does not count."""
    keep_best: bool | str = True
    """With `eval_every`, write the weights to `checkpoints/best` whenever an evaluation finds them better
    than all earlier ones, including those of the start. `true` goes by the main metric of the held-out rows,
    or without such rows by that of the first of `evals`; `SET/METRIC`, as `aime/avg@8`, by another one.
    Training waits for the evaluation that decides, and for no other one."""
    share_prompts: bool = True
    """Compute a prompt once for all of its samples in a micro-batch."""
    gradient_checkpointing: bool = False
    """In training, keep only each layer's input for the backward pass and recompute the rest: less memory, a
    third more work."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_most(self, 10**9, "num_steps", "max_staleness")
        require_at_most(self, 10**6, "num_epochs")
        require_at_least(self, 1, "keep_recoveries")
        require(
            not (self.num_steps and self.num_epochs),
            f"num_epochs: num_steps={self.num_steps} says how long the run is; leave one of them out",
        )
        require_not_negative(
            self,
            "num_epochs",
            "num_steps",
            "eval_every",
            "save_every",
            "recover_every",
            "max_staleness",
        )
