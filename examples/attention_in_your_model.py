"""Add external attention to any network: `python examples/attention_in_your_model.py`."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import resnet18

from emavos.models import ExternalAttention


def main() -> None:
    torch.manual_seed(0)
    network = resnet18(num_classes=4)
    images, labels = torch.randn(8, 3, 64, 64), torch.arange(8) % 4
    before = network.eval()(images)

    network.layer3 = nn.Sequential(network.layer3, ExternalAttention(256))
    assert torch.equal(network(images), before)  # it starts as the identity

    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for step in range(5):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        print(f"step {step}  loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
