"""Blur, noise and JPEG compression: the image alone changes, labels and boxes stay."""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import NoOpTransform, Transform

_LONGEST_JPEG = 65500  # pixels of a side, in libjpeg


class PixelTransform(Transform):
    """A transform of the image's values; labels and coordinates stay as they are."""

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        return box

    def inverse(self) -> Transform:
        return NoOpTransform()


class BlurTransform(PixelTransform):
    """A Gaussian blur; `sigma` is in pixels."""

    def __init__(self, sigma: float):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 to the same."""
        return cv2.GaussianBlur(img, (0, 0), self.sigma)


class NoiseTransform(PixelTransform):
    """Adds Gaussian noise, the same each time: `sigma` in steps of 0..255, drawn from `seed`."""

    def __init__(self, sigma: float, seed: int):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 to the same."""
        # OpenCV's generator is several times faster than NumPy's for normal numbers.
        cv2.setRNGSeed(self.seed)
        noise = np.empty((img.shape[0], img[0].size), np.int16)
        cv2.randn(noise, np.zeros(1), np.full(1, self.sigma))
        return cv2.add(img, noise.reshape(img.shape), dtype=cv2.CV_8U)


class JPEGTransform(PixelTransform):
    """What is left of the image after it was a JPEG file of a `quality` from 1 to 100."""

    def __init__(self, quality: int, image_format: str = "RGB"):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 to the same; an image that is larger than JPEG can be stays as it is."""
        if max(img.shape[:2]) > _LONGEST_JPEG:
            return img
        is_rgb = self.image_format == "RGB"  # JPEG keeps green best, and blue and red unlike
        bgr = cv2.cvtColor(img, cv2.COLOR_RGB2BGR) if is_rgb else img
        _, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        found = cv2.imdecode(content, cv2.IMREAD_COLOR)
        return cv2.cvtColor(found, cv2.COLOR_BGR2RGB) if is_rgb else found


class Blur(T.Augmentation):
    """A Gaussian blur whose standard deviation in pixels is drawn from `sigma_range`."""

    def __init__(self, sigma_range: tuple[float, float]):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        return BlurTransform(np.random.uniform(*self.sigma_range))


class Noise(T.Augmentation):
    """Gaussian noise of each channel, whose standard deviation is drawn from `sigma_range`."""

    def __init__(self, sigma_range: tuple[float, float]):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        return NoiseTransform(np.random.uniform(*self.sigma_range), np.random.randint(1 << 31))


class JPEGCompression(T.Augmentation):
    """JPEG compression of a quality drawn from `quality_range`, both ends among them."""

    def __init__(self, quality_range: tuple[int, int], image_format: str = "RGB"):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        low, high = self.quality_range
        return JPEGTransform(np.random.randint(low, high + 1), self.image_format)
