"""ResNet (He et al., CVPR 2016) up to stride 16."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from emavos.models.convolution import convolve


class ResNetTrunk(nn.Module):
    """torchvision's ResNet without its last stage: feature maps at strides 4, 8 and 16.

    Batch norm is frozen, so batch norm only scales and shifts the output of a convolution. Scaling the
    weights instead is the same function with the same gradients, and saves a pass over each map.

    depth: 18 or 50.
    in_channels: 3 for an image; more if masks are stacked below the image.
    """

    def __init__(self, depth: int, in_channels: int = 3) -> None:
        super().__init__()
        # this import takes a second, and models with another trunk do not need it
        from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

        net = {18: ResNet(BasicBlock, [2, 2, 2, 1]), 50: ResNet(Bottleneck, [3, 4, 6, 1])}[depth]
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu, self.maxpool = net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3
        expansion = 1 if depth == 18 else 4
        self.channels = (64 * expansion, 128 * expansion, 256 * expansion)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, in_channels, H, W) -> features at strides 4, 8, 16."""
        x = self.maxpool(_conv_norm(self.conv1, self.bn1, x).relu_())
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3):
            for block in layer:
                x = _residual(block, x)
            maps.append(x)
        return maps[0], maps[1], maps[2]


def _residual(block: Any, x: Tensor) -> Tensor:
    """Apply a BasicBlock or a Bottleneck of torchvision."""
    pairs: list[tuple[nn.Conv2d, Any]] = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    if hasattr(block, "conv3"):  # a Bottleneck
        pairs.append((block.conv3, block.bn3))
    out = x
    for conv, norm in pairs[:-1]:
        out = _conv_norm(conv, norm, out).relu_()
    conv, norm = pairs[-1]
    out = _conv_norm(conv, norm, out)
    skip = x if block.downsample is None else _conv_norm(block.downsample[0], block.downsample[1], x)
    return (out + skip).relu_()


def _conv_norm(conv: nn.Conv2d, norm: Any, x: Tensor) -> Tensor:
    """Apply a convolution without bias and its batch norm as one convolution."""
    scale = norm.weight.float() * (norm.running_var.float() + norm.eps).rsqrt()
    weight = conv.weight * scale.to(conv.weight.dtype).view(-1, 1, 1, 1)
    bias = (norm.bias - norm.running_mean * scale).to(weight.dtype)
    return convolve(x, weight, bias, conv.stride[0], conv.kernel_size[0] // 2)
