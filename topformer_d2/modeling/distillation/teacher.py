"""A trained model that stays as it is while another one learns from it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..meta_arch.contract import Seen, adapt
from ..meta_arch.head_contract import pad_to_multiple


class Teacher:
    """A trained model that stays as it is: in eval mode, without gradients.

    It is no module. So the student's parameters, state, averaged copies, checkpoints and exports
    have nothing of it, and copies of a student share it.
    """

    def __init__(
        self, model: nn.Module, *, of_mean: Tensor, of_std: Tensor, flips_channels: bool = False
    ):
        """
        Args:
            model: adapted to meta_arch.contract where it is one of Detectron2's.
            of_mean, of_std: (3, 1, 1), by which the student's batches are normalised.
            flips_channels: the student's batches have the channels in the other order.
        """
        self.model: Any = adapt(model).eval().requires_grad_(False)
        self._of_mean, self._of_std = of_mean.detach().clone(), of_std.detach().clone()
        self._flips = flips_channels
        self._is_normalised = (
            not flips_channels
            and torch.equal(of_mean, self.model.pixel_mean)
            and torch.equal(of_std, self.model.pixel_std)
        )
        self._features: dict[str, Any] = {}
        for name in ("sem_seg_head", "head"):
            if hasattr(self.model, name):
                getattr(self.model, name).register_forward_pre_hook(self._keep(name))

    def __deepcopy__(self, memo: dict) -> Teacher:
        return self

    def _keep(self, name: str) -> Any:
        def keep(_: nn.Module, args: tuple) -> None:
            self._features[name] = args[0]

        return keep

    @torch.no_grad()
    def __call__(
        self, images: Tensor, sizes: Sequence[Sequence[int]]
    ) -> tuple[Seen, Sequence[int]]:
        """Run it on a student's batch.

        Args:
            images: (N, 3, H, W), normalised and padded to the right and below as the student's.
            sizes: (height, width) of each image without the padding.

        Returns:
            what its heads get and give, and the (height, width) to which it padded the batch.
        """
        if not self._is_normalised:
            images = self._normalise(images, sizes)
        padded = pad_to_multiple(images, self.model.size_divisor)
        raw = self.model.network(padded)
        features, self._features = self._features, {}
        seen = Seen(raw, features.get("sem_seg_head"), features.get("head"))
        return seen, padded.shape[-2:]

    def _normalise(self, images: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
        images = images * self._of_std + self._of_mean
        if self._flips:
            images = images.flip(1)
        images = (images - self.model.pixel_mean) / self.model.pixel_std
        for image, (height, width) in zip(images, sizes, strict=True):
            image[:, height:] = 0
            image[:, :, width:] = 0
        return images

    def digest(self) -> str:
        """SHA-256 of its weights."""
        found = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()
