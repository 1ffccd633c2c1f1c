"""vLLM's receiving end of weights in shared memory; vLLM imports it, by the name it is registered under."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from realrl.engines.vllm.messages import View
from realrl.realloc.shared import open_shared


@dataclass
class SharedInit(WeightTransferInitInfo):
    """Nothing to agree on."""


@dataclass
class SharedUpdate(WeightTransferUpdateInfo):
    """Where the weights lie; see `messages.Update`."""

    memory: tuple[int, int, int]
    dtype: str
    views: tuple[View, ...] = field(repr=False)

    def tensors(self) -> dict[str, Tensor]:
        buffer = open_shared(torch.tensor(self.memory)).view(getattr(torch, self.dtype))
        return {view.name: buffer.as_strided(view.shape, view.stride, view.offset) for view in self.views}


class SharedMemoryEngine(WeightTransferEngine[SharedInit, SharedUpdate]):
    """Loads a whole checkpoint's tensors from memory of another process; nothing of it is kept mapped."""

    init_info_cls = SharedInit
    update_info_cls = SharedUpdate

    def init_transfer_engine(self, init_info: SharedInit) -> None:
        pass

    def start_weight_update(self) -> None:
        self._expected = {name for name, _ in self.model.named_parameters()}
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict) -> None:
        # Not the base's, which waits for an accelerator, and there may be none.
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def receive_weights(self, update_info: SharedUpdate) -> None:
        loaded = self.model.load_weights(update_info.tensors().items())
        if missing := sorted(self._expected - loaded):
            raise RuntimeError(f"vLLM got no weights for {', '.join(missing)}")

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        if self.model_config.hf_text_config.tie_word_embeddings:
            self._tie()

    def shutdown(self) -> None:
        pass

    def _tie(self) -> None:
        """A tied head that is a module has weights in a form of its own, which a reload leaves as it was."""
        head = getattr(self.model, "lm_head", None)
        if isinstance(head, ParallelLMHead):
            tables = (m for m in self.model.modules() if isinstance(m, VocabParallelEmbedding))
            head.tie_weights(next(table for table in tables if not isinstance(table, ParallelLMHead)))
            head.quant_method.process_weights_after_loading(head)
