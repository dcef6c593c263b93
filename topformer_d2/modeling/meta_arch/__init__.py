from .segmentor import TopFormerSegmentor

__all__ = ["TopFormerSegmentor"]
