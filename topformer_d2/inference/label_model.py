"""A wrapper that turns a model's logits into label maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..modeling import adapt
from .labels import label_map


class LabelMapModel(nn.Module):
    """A model whose "sem_seg", where it has one, is a label map (height, width), by label_map.

    Its mode, training or inference, is the model's.
    """

    def __init__(self, model: nn.Module):
        """
        Args:
            model: of either task or both, as modeling.adapt takes it.
        """
        super().__init__()
        self.model = adapt(model)
        self.training = model.training

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """As the model's forward in inference, but for "sem_seg"."""
        return self.model.predict(batched_inputs, finish=_label_map)


def _label_map(logits: Tensor, input_size: Sequence[int], size: Sequence[int]) -> Tensor:
    return label_map(logits, size, input_size=input_size)
