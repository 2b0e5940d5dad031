"""Every network: shapes, gradients, first weights, memory formats, and that it can be trained."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_network import PUBLISHED
from torch import Tensor, nn
from torch.nn import functional

from kdsim.config import ConfigError
from kdsim.networks import POINT_NETWORKS, DenseNetwork, Network, build, flops, parameter_count

FEATURES = {
    "resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet8": 64, "resnet20": 64, "resnet56": 64,
    "resnet8x4": 256,
    "resnet32x4": 256, "wrn-16-1": 64, "wrn-16-2": 128, "wrn-40-1": 64, "wrn-40-2": 128, "vgg8": 512, "vgg13": 512,
}  # fmt: skip
ONE_A_FAMILY = ("resnet8x4", "wrn-16-1", "vgg8")


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seeded(name: str, classes: int = 10, channels: int = 3, seed: int = 0) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(name, classes, channels)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_logits_are_the_head_of_the_features(name: str) -> None:
    network, x = seeded(name, classes=7).eval(), images(2, 3, 32, 32)
    with torch.no_grad():
        features, logits = network.features(x), network(x)
    assert features.shape == (2, FEATURES[name])
    assert logits.shape == (2, 7)
    assert isinstance(network.head, nn.Linear)
    assert torch.equal(logits, functional.linear(features, network.head.weight, network.head.bias))
    assert features.min() >= 0  # a ReLU comes last
    assert (features.std(0) > 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_gradients_reach_all_parameters(name: str) -> None:
    network = seeded(name)
    functional.cross_entropy(network(images(4, 3, 16, 16)), torch.arange(4)).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.count_nonzero() > 0, key


def test_biases_before_batch_norm_have_no_gradient_beyond_rounding() -> None:
    network = seeded("vgg8").double()
    functional.cross_entropy(network(images(4, 3, 16, 16).double()), torch.arange(4)).backward()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 5
    for convolution in convolutions:
        assert convolution.bias.grad.abs().max() < 1e-12 * convolution.weight.grad.abs().max()


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_the_seed_decides_the_weights(name: str) -> None:
    first, again, other = seeded(name), seeded(name), seeded(name, seed=1)
    pairs = zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.slow
@pytest.mark.parametrize("name", ("resnet50", "resnet32x4", "wrn-40-2", "vgg8"))
def test_first_weights(name: str) -> None:
    network, checked = seeded(name, classes=100), 0
    for key, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            outputs, _, height, width = module.weight.shape
            ratio = module.weight.square().mean().item() * outputs * height * width / 2
            error = math.sqrt(2 / module.weight.numel())  # standard error of a mean square
            assert abs(ratio - 1) < 5 * error, key
            assert module.bias is None or not module.bias.any(), key
            checked += 1
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any(), key
    assert checked >= 5
    if name == "vgg8":
        assert network.head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    if name in ("vgg8", "wrn-40-2"):
        assert not network.head.bias.any()


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_batch_norm_in_training_and_in_evaluation(name: str) -> None:
    network, x = seeded(name), images(4, 3, 16, 16)
    key, norm = next((key, module) for key, module in network.named_modules() if isinstance(module, nn.BatchNorm2d))
    inputs = []
    norm.register_forward_hook(lambda module, arguments, output: inputs.append(arguments[0]))
    network.train()(x)
    assert torch.allclose(norm.running_mean, 0.1 * inputs[0].mean((0, 2, 3)), atol=1e-6), key
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.eval()
    with torch.no_grad():
        whole, part = network(x), network(x[:1])
    assert torch.allclose(whole[:1], part, atol=1e-5)  # an image's logits do not depend on the batch
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not torch.allclose(network.train()(x)[:2], network(x[:2]), atol=1e-3)


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_channels_last_is_kept_and_changes_nothing(name: str) -> None:
    network, x = seeded(name).eval(), images(2, 3, 32, 32)
    formats = []

    def look(module: nn.Module, arguments: tuple[Tensor], output: Tensor) -> None:
        tensors = (*arguments, output)
        formats.append(all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors))

    with torch.no_grad():
        expected = network(x)
        network.to(memory_format=torch.channels_last)
        layers = [module for module in network.body.modules() if not list(module.children())]
        for layer in layers:
            layer.register_forward_hook(look)
        found = network(x.to(memory_format=torch.channels_last))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert len(formats) >= len(layers) and all(formats)


@pytest.mark.slow
@pytest.mark.parametrize("name", ("resnet50", *ONE_A_FAMILY))
@pytest.mark.parametrize("shape", [(2, 3, 33, 29), (2, 3, 8, 8), (2, 3, 64, 40)])
def test_other_sizes_are_averaged_over(name: str, shape: tuple[int, ...]) -> None:
    assert seeded(name)(images(*shape)).shape == (2, 10)


def test_one_channel() -> None:
    assert seeded("resnet20", classes=4, channels=1)(images(2, 1, 28, 28)).shape == (2, 4)


@pytest.mark.parametrize("name", ONE_A_FAMILY)
@pytest.mark.parametrize("shape", [(2, 3, 7, 32), (2, 3, 32, 7), (2, 1, 32, 32), (3, 32, 32), (2, 3072)])
def test_other_shapes_are_refused(name: str, shape: tuple[int, ...]) -> None:
    expected = rf"^shape of x = \({shape[0]}, .*\) is not allowed: must be \(b, 3, h, w\) with h and w at least 8$"
    with pytest.raises(ConfigError, match=expected):
        seeded(name)(torch.zeros(shape))


def test_names_and_numbers_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"^unknown network 'wrn_16_2' \(nearest: wrn-16-2\); allowed: resnet18, .*$"):
        build("wrn_16_2", 10)
    with pytest.raises(ConfigError, match=r"^classes = 1 is not allowed: must be an integer >= 2$"):
        build("vgg8", 1)
    with pytest.raises(ConfigError, match=r"^channels = 0 is not allowed: must be an integer >= 1$"):
        build("resnet20", 10, 0)


@pytest.mark.slow
def test_the_smallest_network_learns_one_batch_by_heart() -> None:
    network, x, y = seeded("wrn-16-1"), images(8, 3, 32, 32), torch.arange(8)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(25):
        loss = functional.cross_entropy(network(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 1.5  # about log 10 for labels that the network cannot know
    assert losses[-1] < 0.05
    assert torch.equal(network(x).argmax(1), y)


# Networks of points -------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "features", "parameters", "products"), [
    ("linear", 6, 7 * 5, 6 * 5),
    ("mlp", 128, 7 * 128 + 129 * 128 + 129 * 5, 6 * 128 + 128 * 128 + 128 * 5),
])  # fmt: skip
def test_a_network_of_points(name: str, features: int, parameters: int, products: int) -> None:
    """Shapes, head and features, size and cost, and one Linear after another against the formula."""
    network, x = seeded(name, classes=5, channels=6), images(9, 6)
    phi, logits = network.features(x), network(x)
    assert isinstance(network, DenseNetwork) and phi.shape == (9, features) and logits.shape == (9, 5)
    assert parameter_count(network) == parameters and flops(network, (6,)) == products
    expected = x
    for layer in [layer for layer in network.body if isinstance(layer, nn.Linear)]:
        expected = (expected @ layer.weight.T + layer.bias).relu()
    torch.testing.assert_close(phi, expected)
    torch.testing.assert_close(logits, expected @ network.head.weight.T + network.head.bias)


@pytest.mark.parametrize("name", POINT_NETWORKS)
def test_first_weights_of_a_network_of_points_are_those_of_torch(name: str) -> None:
    """Uniform within +-1/sqrt(inputs), weights and biases: bounds, and the variance (bound^2 / 3) within |z| < 5."""
    network = seeded(name, classes=400, channels=50)
    for layer in [module for module in network.modules() if isinstance(module, nn.Linear)]:
        bound = layer.in_features**-0.5
        for values in (layer.weight.detach().flatten(), layer.bias.detach()):
            assert values.abs().max() <= bound and values.abs().max() > 0.9 * bound
            z = (values.square().mean() - bound**2 / 3) / (bound**2 * (4 / 45 / values.numel()) ** 0.5)
            assert abs(z) < 5
    assert not torch.equal(network.head.weight, seeded(name, classes=400, channels=50, seed=1).head.weight)


def test_images_and_points_are_not_taken_for_each_other() -> None:
    for x in (images(2, 3, 8, 8), images(2, 7), images(6)):
        with pytest.raises(ConfigError, match=r"shape of x = .* is not allowed: must be \(b, 6\)"):
            seeded("mlp", channels=6)(x)
    with pytest.raises(ConfigError, match=r"shape of x = \(2, 3\) is not allowed: must be \(b, 3, h, w\)"):
        seeded("resnet8")(images(2, 3))
    with pytest.raises(ConfigError, match=r"unknown network 'lineal' \(nearest: linear"):
        build("lineal", 10)
    for arguments in ((1, 6), (3, 0)):
        with pytest.raises(ConfigError, match=r"must be an integer >="):
            build("linear", *arguments)
    assert not set(POINT_NETWORKS) & set(PUBLISHED)
