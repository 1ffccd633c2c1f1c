"""What a worker and its vLLM process say to each other; every request has one reply, in order."""

from __future__ import annotations

import msgspec

from realrl.api.config import GenerationConfig


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Its class is its tag."""


class Start(Message, kw_only=True):
    """Build the model, with any weights."""

    directory: str
    """Of the Hugging Face model; its weights are not read."""
    dtype: str
    device: str
    max_tokens: int
    """Of a prompt and its response."""
    max_sequences: int
    cache_bytes: int


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of the model's checkpoint and where it lies in a buffer, in elements."""

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class Update(Message, kw_only=True):
    """Take these for the weights."""

    version: int
    memory: tuple[int, int, int]
    """The handle of the shared memory that they lie in, until the reply."""
    dtype: str
    views: tuple[View, ...]


class Generate(Message, kw_only=True):
    """A response to each prompt."""

    version: int
    """What the weights must be."""
    prompts: tuple[tuple[int, ...], ...]
    seeds: tuple[int, ...]
    enders: tuple[int, ...]
    """Tokens that end a response."""
    config: GenerationConfig


class Sleep(Message, kw_only=True):
    """Give back what memory the platform lets go of, until the next `Update`."""


class Ready(Message, kw_only=True):
    """What was asked for is done."""


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """One sample's new tokens."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    """At the sampling temperature, over the whole vocabulary."""
    ended: bool


class Generated(Message, kw_only=True):
    """The responses, in the order of the prompts."""

    version: int
    """Of the weights that drew them."""
    responses: tuple[Response, ...]


class Working(Message, kw_only=True):
    """Another token was drawn. It is no reply, and may come before one."""


class Failed(Message, kw_only=True):
    """A request raised."""

    error: str
    traceback: str


Request = Start | Update | Generate | Sleep
Reply = Ready | Generated | Failed
Said = Reply | Working
