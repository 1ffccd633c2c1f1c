"""What a person can set. Each recipe's config extends `RunConfig`; the field docstrings are the manual."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, NamedTuple

from realrl.api.cluster import RayConfig, SlurmConfig
from realrl.base.require import require, require_at_most

AUTO = "auto"
"""What a setting says that is chosen for the machine at hand."""


def _is_folder_name(text: str) -> bool:
    return (
        text.isprintable() and "/" not in text and text not in ("", ".", "..") and len(text.encode()) <= 100
    )


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
    """A model and the arithmetic it runs in."""

    path: str = ""
    """A Hugging Face model directory; a model of the Hugging Face Hub, `OWNER/NAME[@REVISION]`, unless a
    directory has that name; or `smollm2-135m-instruct`, the demo model. It must be given."""
    commit: str | None = None
    """The commit of a model of the Hub. Left out, that of its revision at the start; the run's `config.yaml`
    has it, and a resume keeps it."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of weights and activations; the optimizer keeps float32 masters."""
    replica_dtype: Literal["float32", "bfloat16"] | None = None
    """Type of its replicas away from where it lives, cast on the way; left out, that of `dtype`."""
    keep_replicas: bool = False
    """Keep the memory of such replicas between their calls, and their weights while they are current."""
    offload: bool = False
    """Between its calls, keep its weights in host memory alone; with them, in training, the optimizer's
    states."""

    @property
    def away_dtype(self) -> str:
        return self.replica_dtype or self.dtype


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    lr: float = 1e-5
    """Peak learning rate."""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    """Applied to matrices only, not to norms and biases."""
    warmup_steps: int = 0
    """Optimizer steps of linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate falls from its peak after the warm-up until the run's last step."""
    min_lr_ratio: float = 0.0
    """Rate at the run's end, as a share of the peak."""
    clip_grad_norm: float = 1.0
    """Largest norm of the whole gradient; 0 turns clipping off."""
    offload: bool = False
    """Keep masters and moments in host memory; the update runs there. For device: cuda."""

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay"):
            require((value := getattr(self, name)) >= 0, f"{name} must not be negative, got {value}")
        for name in ("beta1", "beta2"):
            require(0 <= (value := getattr(self, name)) < 1, f"{name} must be in [0, 1), got {value}")
        require(self.eps > 0, f"eps must be positive, got {self.eps}")
        require(0 <= self.min_lr_ratio <= 1, f"min_lr_ratio must be from 0 to 1, got {self.min_lr_ratio}")
        require(self.clip_grad_norm >= 0, f"clip_grad_norm must not be negative, got {self.clip_grad_norm}")
        require(self.warmup_steps >= 0, f"warmup_steps must not be negative, got {self.warmup_steps}")


@dataclass(frozen=True, kw_only=True)
class TrainedModelConfig:
    """A model and how it is trained."""

    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How responses are sampled, and by what."""

    engine: Literal["realrl", "vllm"] = "realrl"
    """What generates: realrl itself, or vLLM, which gets the weights anew whenever they changed."""
    max_new_tokens: int = 1024
    """Longest response; a run says so where many reach it."""
    min_new_tokens: int = 0
    """No end-of-sequence token before this many."""
    temperature: float = 1.0
    """0 takes the most likely token; else at least 0.01, as logits are divided by it."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end a response, beside the model's own."""
    stop: tuple[str, ...] = ()
    """Strings that end a response once its text has one of them."""
    max_sequences: int = 256
    """Sequences decoded at once on one data-parallel rank."""
    cache_mib: int = 0
    """Most memory for their keys and values on one rank, in MiB (0: what they need, as far as the device has
    it)."""
    interruptible: bool = False
    """With `max_staleness`, new weights reach responses that are under way: these stop between two tokens,
    take them and go on. Fresher, but such a run is not reproducible: the moment depends on speed."""

    def __post_init__(self) -> None:
        require(self.max_new_tokens >= 1, f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        require(
            0 <= self.min_new_tokens <= self.max_new_tokens,
            f"min_new_tokens must be from 0 to max_new_tokens, got {self.min_new_tokens}",
        )
        require(
            self.temperature == 0 or self.temperature >= 0.01,
            f"temperature must be 0 or at least 0.01, got {self.temperature}",
        )
        require(0 < self.top_p <= 1, f"top_p must be in (0, 1], got {self.top_p}")
        require(self.top_k >= 0, f"top_k must not be negative, got {self.top_k}")
        require(self.max_sequences >= 1, f"max_sequences must be at least 1, got {self.max_sequences}")
        require(self.cache_mib >= 0, f"cache_mib must not be negative, got {self.cache_mib}")
        require_at_most(self, 2**24, "max_new_tokens", "max_sequences", "cache_mib")

    def greedy(self) -> GenerationConfig:
        """The same limits, always taking the most likely token."""
        return replace(self, temperature=0.0, top_p=1.0, top_k=0)

    @property
    def training_temperature(self) -> float:
        """The temperature that log-probabilities are taken at: the sampling one, or 1 when that is greedy."""
        return self.temperature or 1.0


@dataclass(frozen=True, kw_only=True)
class PlacementConfig:
    """One call's mesh and layout, in full."""

    ranks: tuple[int, ...]
    pp: int = 1
    dp: int = 1
    tp: int = 1
    vp: int = 1
    """Chunks of layers on each pipeline stage."""


LoggerName = Literal["tensorboard", "wandb", "mlflow", "trackio", "swanlab"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every recipe's config has."""

    experiment: str
    """Name of the experiment: outputs go to `runs_dir/experiment/trial`."""
    trial: str = "trial"
    runs_dir: str = "runs"
    seed: int = 1
    batch_size: int = 8
    """Prompts (or examples) a step."""
    max_tokens_per_microbatch: int = 0
    """Token budget of one forward and backward pass (0: what the device's memory allows)."""
    deterministic: bool = False
    """On CPUs: use products of one shape only, so that a token's log-probability is the same, bit for bit,
    when it is generated and when it is trained on; the two need the same `t`. On CUDA: use only kernels whose
    sums have one order, so that a run that is repeated or resumed on the same plan and devices has the same
    bits; the two log-probabilities still differ by rounding. Slower."""
    allocation: str = AUTO
    """Layouts by call, as `actor_gen:d2,*:p2`, or disjoint meshes, as `gen.d2+p2`. `auto` takes every device
    of this host, with as little model parallelism as memory allows, and says what it chose; on a CPU, one
    rank."""
    placements: dict[str, PlacementConfig] = field(default_factory=dict)
    """Mesh and layout of single calls in full; goes before `allocation`."""
    device: Literal["auto", "cpu", "cuda"] = AUTO
    """Where models run; `auto` is `cuda` on a cluster and where this host has a CUDA device, else `cpu`."""
    staging_mib: int = 256
    """Most memory a rank uses for messages while weights or batches move, in MiB."""
    checksums: bool = True
    """Check each message that weights and batches move in; a byte that changed on the way ends the run."""
    call_timeout_s: float = 1800.0
    """A call without progress for so long has failed; `hang.txt` then says what held it up. Tokens,
    micro-batches and answers are progress; a set-up, a transfer or a rank's save has so long in all."""
    recover: Literal["auto", "off"] = "auto"
    """`auto` resumes a run of this name that was cut short: a training from its newest whole recovery point
    (`recover_every`), on the same plan to the same bits (on CUDA with `deterministic`); a pass over data
    after its last whole batch. A finished run has nothing to do, unless `num_steps` is more now and it left a
    recovery point. Settings, rows and models that results so far depend on must be the same; where they are
    may change. Where points are found and none is whole, the run stops and asks. `off` begins afresh, and
    keeps an earlier run as TRIAL.N."""
    restarts: int = 3
    """Up to how many times a run that failed, as for a worker that died, is resumed by itself; a training
    without `recover_every` is not. The same failure twice, at the same place, ends the run."""
    logger: tuple[LoggerName, ...] = ("tensorboard",)
    """Where metrics go besides `metrics.jsonl`, as `[tensorboard, wandb]`; all but TensorBoard are extras:
    `pip install 'realrl[wandb]'`. Their files go to the run's directory unless their own environment
    variables say otherwise. A logger that fails or is slow does not hold up the run; what it loses is counted
    and said."""
    sigterm_grace_s: float = 20.0
    """How long a training with `recover_every` may take, once SIGTERM asks it to stop, to end the update that
    is under way and write a recovery point; what is generated for the next one is left. 0 stops at once.
    SLURM and Kubernetes kill after 30 s, unless they are set up otherwise."""
    mode: Literal["local", "ray", "slurm"] = "local"
    """Where workers run: on this host, on a Ray cluster, or on nodes that SLURM gives. On a cluster, all need
    a file system that they share."""
    devices_per_node: int = 8
    """Workers on each node of a cluster; the plan's ranks fill one node after another."""
    cpus_per_worker: int = 4
    """CPU cores of each worker on a cluster; on this host, workers share them all."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        for name in ("batch_size", "staging_mib", "devices_per_node", "cpus_per_worker"):
            require((value := getattr(self, name)) >= 1, f"{name} must be at least 1, got {value}")
        budget = self.max_tokens_per_microbatch
        require(budget >= 0, f"max_tokens_per_microbatch must not be negative, got {budget}")
        for name in ("experiment", "trial"):
            value = getattr(self, name)
            require(
                _is_folder_name(value),
                f"{name} must be a plain folder name of at most 100 bytes, got {reprlib.repr(value)}",
            )
        require(
            len(set(self.logger)) == len(self.logger),
            f"logger: expected each name at most once, got {', '.join(self.logger)}",
        )
        require(self.restarts >= 0, f"restarts must not be negative, got {self.restarts}")
        require(
            self.sigterm_grace_s >= 0, f"sigterm_grace_s must not be negative, got {self.sigterm_grace_s}"
        )
        require(self.call_timeout_s > 0, f"call_timeout_s must be positive, got {self.call_timeout_s}")
        require_at_most(self, 2**18, "batch_size")
        require_at_most(self, 2**24, "staging_mib")
        require_at_most(self, 10**9, "call_timeout_s", "devices_per_node", "cpus_per_worker")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(RunConfig):
    """What the config of every recipe has that trains."""

    num_steps: int = 0
    """Batches to train on (0: as many as one pass over the rows takes)."""
    max_staleness: int = 0
    """How many training steps the weights that draw a step's responses are behind. With 1, the next step's
    responses are generated while this step's are trained on, on ranks that do not train. More is faster only
    where generation is `interruptible`: one copy of the weights cannot be of two ages."""
    eval_every: int = 0
    """Evaluate every N steps (0: only at the start and the end)."""
    save_every: int = 0
    """Write a Hugging Face checkpoint every N steps (0: only at the end)."""
    recover_every: int = 0
    """Write a recovery point every N steps and at the end (0: never): masters, moments, changed weights, what
    calls remember; 12 bytes a trained weight. It is copied at once and written while the next step runs. With
    `max_staleness`, generation starts ahead anew from there, so that no response under way is lost."""
    keep_recoveries: int = 2
    """Recovery points that are kept; once the run has ended, the last one, from which more `num_steps`
    continue: its folder may be deleted by hand. One that fails a check is kept too, and not counted."""
    keep_best: bool = True
    """With `eval_every`, write the weights as `checkpoints/best` whenever an evaluation finds them better
    than all before, those of the start included. Training goes on once the evaluation has ended."""
    share_prompts: bool = True
    """Compute a prompt once for all of its samples in a micro-batch."""
    gradient_checkpointing: bool = False
    """In training, keep each layer's input alone for the backward pass, and compute the rest again: less
    memory, a third more work."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_most(self, 10**9, "num_steps", "max_staleness")
        require(self.keep_recoveries >= 1, f"keep_recoveries must be at least 1, got {self.keep_recoveries}")
        for name in ("num_steps", "eval_every", "save_every", "recover_every", "max_staleness"):
            require((value := getattr(self, name)) >= 0, f"{name} must not be negative, got {value}")
