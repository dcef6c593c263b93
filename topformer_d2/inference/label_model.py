"""A wrapper that turns a model's logits into label maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..modeling import adapt
from .labels import label_map
from .sampled_confidence import sampled_confidence


class LabelMapModel(nn.Module):
    """A model whose "sem_seg", where it has one, is a label map (height, width), by label_map.

    Its mode, training or inference, is the model's.
    """

    def __init__(self, model: nn.Module, *, confidence: bool = False):
        """
        Args:
            model: of either task or both, as modeling.adapt takes it.
            confidence: also give "sem_seg_confidence", what sampled_confidence gives: the
                probability of the label at every fourth row and column.
        """
        super().__init__()
        self.model = adapt(model)
        self.confidence = confidence
        self.training = model.training

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """As the model's forward in inference, but for "sem_seg"."""
        if not self.confidence:
            return self.model.predict(batched_inputs, finish=_label_map)
        outputs = self.model.predict(batched_inputs, finish=_label_map_and_confidence)
        for output in outputs:
            if "sem_seg" in output:
                output["sem_seg"], output["sem_seg_confidence"] = output["sem_seg"]
        return outputs


def _label_map(logits: Tensor, input_size: Sequence[int], size: Sequence[int]) -> Tensor:
    return label_map(logits, size, input_size=input_size)


def _label_map_and_confidence(
    logits: Tensor, input_size: Sequence[int], size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    found = label_map(logits, size, input_size=input_size)
    assert isinstance(found, Tensor)  # without its own confidence
    return found, sampled_confidence(logits, size, input_size)
