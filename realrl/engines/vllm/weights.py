"""vLLM's receiving end of weights in lent memory; vLLM imports it, by the name it is registered under."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from realrl.engines.vllm.borrowing import Borrower
from realrl.engines.vllm.protocol import Loan, View


@dataclass
class SharedInit(WeightTransferInitInfo):
    """Nothing to agree on."""


@dataclass
class SharedUpdate(WeightTransferUpdateInfo):
    """Where a part of the weights lies; see `messages.Load`."""

    memory: Loan
    dtype: str
    views: tuple[View, ...] = field(repr=False)


class SharedMemoryEngine(WeightTransferEngine[SharedInit, SharedUpdate]):
    """Loads a whole checkpoint's tensors, in one or more parts, from memory of another process."""

    init_info_cls = SharedInit
    update_info_cls = SharedUpdate

    def init_transfer_engine(self, init_info: SharedInit) -> None:
        self._borrower = Borrower(pins=self.device.type == "cuda")

    def start_weight_update(self) -> None:
        self._missing = {name for name, _ in self.model.named_parameters()}
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict) -> None:
        # Not the base's, which waits for the device: `finish_weight_update` does, once for all parts.
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: SharedUpdate) -> None:
        lent = self._borrower.tensors(update_info.memory, update_info.dtype, update_info.views)
        self._missing -= self.model.load_weights(lent.items())

    def finish_weight_update(self) -> None:
        if self._missing:
            raise RuntimeError(f"vLLM got no weights for {', '.join(sorted(self._missing))}")
        finalize_layerwise_reload(self.model, self.model_config)
        if self.model_config.hf_text_config.tie_word_embeddings:
            self._tie()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._borrower.give_back()

    def shutdown(self) -> None:
        pass

    def _tie(self) -> None:
        """A tied head that is a module has weights in a form of its own, which a reload leaves as it was."""
        head = getattr(self.model, "lm_head", None)
        if isinstance(head, ParallelLMHead):
            tables = (m for m in self.model.modules() if isinstance(m, VocabParallelEmbedding))
            head.tie_weights(next(table for table in tables if not isinstance(table, ParallelLMHead)))
            head.quant_method.process_weights_after_loading(head)
