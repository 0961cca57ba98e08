"""Weights in and out: the model in this package, folders, the Hugging Face Hub, and checkpoints of others."""

from emavos.weights.card import ModelCard
from emavos.weights.load import KNOWN, choose_device, choose_dtype, load_model, push_model, save_model

__all__ = [
    "KNOWN",
    "ModelCard",
    "choose_device",
    "choose_dtype",
    "load_model",
    "push_model",
    "save_model",
]
