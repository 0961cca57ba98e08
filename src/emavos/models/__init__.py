"""The network and its parts. Needs only torch and torchvision."""

from emavos.models.aggregation import aggregate, aggregate_logits
from emavos.models.attention import ExternalAttention, MultiHeadExternalAttention, SelfAttention
from emavos.models.compiling import compiled, is_compiled
from emavos.models.config import PRESETS, STCNConfig
from emavos.models.digest import weights_sha256
from emavos.models.encoders import Features
from emavos.models.folding import folded
from emavos.models.stcn import STCN, STRIDE

__all__ = [
    "PRESETS",
    "STCN",
    "STRIDE",
    "ExternalAttention",
    "Features",
    "MultiHeadExternalAttention",
    "STCNConfig",
    "SelfAttention",
    "aggregate",
    "aggregate_logits",
    "compiled",
    "folded",
    "is_compiled",
    "weights_sha256",
]
