"""Weights of a network of transformers, drawn at random in a scale that texts tell apart by."""

import torch


def draw_weights(model):
    """Fill in every parameter, from PyTorch's generator as it is seeded."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            norm = "norm" in name.lower() and name.endswith("weight")
            weight.copy_(1 + 0.2 * torch.randn_like(weight) if norm else 0.15 * torch.randn_like(weight))
