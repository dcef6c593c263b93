from .topformer import TopFormer, build_topformer_backbone
from .variants import VARIANTS, Variant

__all__ = ["VARIANTS", "TopFormer", "Variant", "build_topformer_backbone"]
