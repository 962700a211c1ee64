"""What runs inside vLLM's worker processes, which load it by name (`EXTENSION`), beside its own methods."""

from __future__ import annotations

from typing import Any

EXTENSION = "models.paged_sparing.Extension"
RELOAD = "flotilla_reload"


class Reloading:
    """Mixed into vLLM's worker."""

    reload_weights: Any
    model_runner: Any

    def flotilla_reload(self, weights_path: str) -> None:
        """vLLM 0.32's `reload_weights`, and what it forgets: an output layer that shares the embedding's
        weights has nothing to load of its own, so on a CPU it kept a packed copy of the old ones."""
        from vllm.model_executor.layers import vocab_parallel_embedding as vllm  # noqa: PLC0415

        self.reload_weights(weights_path=weights_path)
        for layer in self.model_runner.get_model().modules():
            method = getattr(layer, "quant_method", None)
            if isinstance(layer, vllm.ParallelLMHead) and isinstance(method, vllm.UnquantizedEmbeddingMethod):
                method.process_weights_after_loading(layer)
