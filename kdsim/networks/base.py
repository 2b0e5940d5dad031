"""What all image networks share: a convolutional body, the mean over positions, a linear head, the first weights."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from kdsim.config import require, require_count


class Network(nn.Module):
    """Logits = head(features(x)), features = mean over positions of body(x).

    Since positions are averaged, images need not be 32 x 32; the published codes, which pool over a fixed window, give
    the same at 32 x 32. Weights are drawn from torch's generator (`torch.manual_seed`).

    Attributes:
        body: (b, channels, h, w) -> (b, F, h', w').
        head: the last layer, F -> K; nothing comes after it, so that it can be replaced or given a posterior.
    """

    smallest: ClassVar[int] = 8
    """Least height and width: three halvings leave one position."""

    body: nn.Sequential
    head: nn.Linear

    def __init__(self, classes: int, channels: int) -> None:
        require_count("classes", classes, least=2)
        require_count("channels", channels)
        super().__init__()
        self.classes, self.channels = classes, channels

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features. (b, channels, h, w) -> (b, F).

        Raises:
            ConfigError: x has another number of axes or channels, or is smaller than `smallest`.
        """
        shape = tuple(x.shape)
        fits = len(shape) == 4 and shape[1] == self.channels and min(shape[2:]) >= self.smallest
        require(fits, "shape of x", shape, f"(b, {self.channels}, h, w) with h and w at least {self.smallest}")
        return self.body(x).mean((2, 3))  # no view, so that any memory format will do

    def forward(self, x: Tensor) -> Tensor:
        """Logits. (b, channels, h, w) -> (b, K)."""
        return self.head(self.features(x))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps height and width (divided by the stride, rounded up), without a bias."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def initialise(network: nn.Module) -> None:
    """First weights of the published codes; a Linear is left as it is.

    Convolutions: normal with variance 2 / fan-out, fan-out = outputs x kernel area, which keeps the variance of
    gradients through ReLU layers (He et al., "Delving deep into rectifiers", ICCV 2015, arXiv:1502.01852, eq. 14);
    biases zero. BatchNorm: weight one, bias zero.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
