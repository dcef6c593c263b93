"""A model that gives label maps where it gave logits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .labels import label_map


class LabelMapModel(nn.Module):
    """A segmenter or joint model whose "sem_seg" is a label map (height, width), made by label_map.

    Its mode, training or inference, is the model's.
    """

    def __init__(self, model: nn.Module):
        """
        Args:
            model: has TopFormerSegmentor's `predict`.
        """
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """As the model's forward in inference, but for "sem_seg"."""
        return self.model.predict(batched_inputs, finish=_label_map)


def _label_map(logits: Tensor, input_size: Sequence[int], size: Sequence[int]) -> Tensor:
    return label_map(logits, size, input_size=input_size)
