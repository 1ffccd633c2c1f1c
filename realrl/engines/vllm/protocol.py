"""What a worker and its vLLM process say to each other; every request has one reply, in order."""

from __future__ import annotations

import msgspec

from realrl.api.config import GenerationConfig


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Its class is its tag."""


class Start(Message, frozen=True, kw_only=True):
    """Build the model, with any weights."""

    directory: str
    """Of the Hugging Face model; its weights are not read."""
    dtype: str
    device: str
    max_tokens: int
    """Of a prompt and its response."""
    max_sequences: int
    cache_bytes: int


class HostLoan(msgspec.Struct, frozen=True, kw_only=True, tag="host"):
    """Host memory of the worker's; it is the same for the whole run."""

    handle: tuple[int, int, int]


class DeviceLoan(msgspec.Struct, frozen=True, kw_only=True, tag="device"):
    """Device memory of the worker's, until the weights are adopted."""

    handle: bytes
    num_bytes: int


Loan = HostLoan | DeviceLoan


class Probe(Message, frozen=True, kw_only=True):
    """Read all of this memory."""

    memory: DeviceLoan


class Probed(Message, frozen=True, kw_only=True):
    """What was read, or why nothing could be."""

    content: bytes = b""
    problem: str = ""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of the model's checkpoint and where it lies in a buffer, in elements."""

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class Load(Message, frozen=True, kw_only=True):
    """Load a part of the next weights; they must not change until `Adopt` is answered."""

    memory: Loan
    dtype: str
    views: tuple[View, ...]


class Adopt(Message, frozen=True, kw_only=True):
    """Take what was loaded since the last `Adopt` for the weights, and keep nothing of the lent memory."""

    version: int


class Generate(Message, frozen=True, kw_only=True):
    """A response to each prompt."""

    version: int
    """What the weights must be."""
    prompts: tuple[tuple[int, ...], ...]
    seeds: tuple[int, ...]
    enders: tuple[int, ...]
    """Tokens that end a response."""
    config: GenerationConfig


class Sleep(Message, frozen=True, kw_only=True):
    """Give back what memory the platform lets go of, until the next `Load`."""


class Ready(Message, frozen=True, kw_only=True):
    """What was asked for is done."""


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """One sample's new tokens."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    """At the sampling temperature, over the whole vocabulary."""
    ended: bool


class Generated(Message, frozen=True, kw_only=True):
    """The responses, in the order of the prompts."""

    version: int
    """Of the weights that drew them."""
    responses: tuple[Response, ...]


class Working(Message, frozen=True, kw_only=True):
    """Another token was drawn. It is no reply, and may come before one."""


class Failed(Message, frozen=True, kw_only=True):
    """A request raised."""

    error: str
    traceback: str


Request = Start | Probe | Load | Adopt | Generate | Sleep
Reply = Ready | Probed | Generated | Failed
Said = Reply | Working
