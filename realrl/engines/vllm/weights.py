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
    """It is empty: there is nothing to agree on."""


@dataclass
class SharedUpdate(WeightTransferUpdateInfo):
    """Where a part of the weights lies; see `protocol.Load`."""

    memory: Loan
    dtype: str
    views: tuple[View, ...] = field(repr=False)


class SharedMemoryEngine(WeightTransferEngine[SharedInit, SharedUpdate]):
    """Loads a whole checkpoint's tensors, in one or more parts, from memory of another process."""

    init_info_cls = SharedInit
    update_info_cls = SharedUpdate

    def init_transfer_engine(self, init_info: SharedInit) -> None:
        """Prepare to open lent memory."""
        self._borrower = Borrower(pins=self.device.type == "cuda")

    def start_weight_update(self) -> None:
        """Prepare the model for a whole version of its weights."""
        self._missing = {name for name, _ in self.model.named_parameters()}
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict) -> None:
        """Load one part of the weights."""
        # Not the base's, which waits for the device: `finish_weight_update` does, once for all parts.
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: SharedUpdate) -> None:
        """Load one part from lent memory."""
        lent = self._borrower.tensors(update_info.memory, update_info.dtype, update_info.views)
        self._missing -= self.model.load_weights(lent.items())

    def finish_weight_update(self) -> None:
        """Finish the version, and give lent memory back.

        Raises:
            RuntimeError: a parameter got no weights.
        """
        if self._missing:
            names = ", ".join(sorted(self._missing))
            raise RuntimeError(f"vLLM got no weights for {names}")
        finalize_layerwise_reload(self.model, self.model_config)
        if self.model_config.hf_text_config.tie_word_embeddings:
            self._tie()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._borrower.give_back()

    def shutdown(self) -> None:
        """Do nothing: lent memory was given back after each version."""

    def _tie(self) -> None:
        """Tie a head that is a module: it keeps a form of its weights that a reload does not change."""
        head = getattr(self.model, "lm_head", None)
        if isinstance(head, ParallelLMHead):
            head.tie_weights(self._embedding())
            head.quant_method.process_weights_after_loading(head)

    def _embedding(self) -> VocabParallelEmbedding:
        """Return the embedding, which is a table of the vocabulary but no head."""
        for module in self.model.modules():
            if isinstance(module, VocabParallelEmbedding) and not isinstance(module, ParallelLMHead):
                return module
        raise RuntimeError("vLLM's model has a tied head, but no embedding")
