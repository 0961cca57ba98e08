"""ResNet (He et al., CVPR 2016) up to stride 16."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


class ResNetTrunk(nn.Module):
    """torchvision's ResNet without its last stage: feature maps at strides 4, 8 and 16.

    depth: 18 or 50. in_channels: 3 for an image; more where masks come with it.
    """

    def __init__(self, depth: int, in_channels: int = 3) -> None:
        super().__init__()
        net = {18: ResNet(BasicBlock, [2, 2, 2, 1]), 50: ResNet(Bottleneck, [3, 4, 6, 1])}[depth]
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu, self.maxpool = net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3
        expansion = 1 if depth == 18 else 4
        self.channels = (64 * expansion, 128 * expansion, 256 * expansion)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, in_channels, H, W) -> features at strides 4, 8, 16."""
        f4 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        f8 = self.layer2(f4)
        return f4, f8, self.layer3(f8)
