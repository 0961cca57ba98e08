"""Load, save and publish weights: the models in this package, folders, the Hub, and other checkpoints."""

from emavos.weights.card import ModelCard
from emavos.weights.click_head import load_clicks, save_clicks
from emavos.weights.load import KNOWN, choose_device, choose_dtype, load_model, push_model, save_model

__all__ = [
    "KNOWN",
    "ModelCard",
    "choose_device",
    "choose_dtype",
    "load_clicks",
    "load_model",
    "push_model",
    "save_clicks",
    "save_model",
]
