"""Renderer of 3 x 32 x 32 images: a fixed smooth map from a latent and nuisance variables to pixels.

An image shows one figure on a background: a rounded body of two colours in stripes, with an eye. The latent sets the
*form* of the figure alone (`Form`); the nuisance sets where it stands, how large it is, every colour, which of figure
and background is brighter, the phase of the stripes, the texture of the background and the clutter *behind* the
figure. Nothing is drawn over the figure, so its form can always be seen.

Forms are relative to the figure's size and position, and angles keep clear of their symmetry: the form tells the
latent whatever the nuisance is. The body's outline gives orientation (axis within +-70 degrees of the horizontal, so
below its period of 180), aspect (> 1.3, so that there is an axis) and lobes (a threefold term is odd under a half turn,
so its sign shows); the stripes give their direction (+-70 degrees, period 180), frequency in units of the size that the
outline shows, and bend; the eye gives its place along the axis and its size. Each is a strictly increasing function of
one coordinate of the latent.

Edges are soft (a logistic profile), so that pixels are smooth functions of latent and nuisance with derivatives of
every order almost everywhere, and sub-pixel changes of form show in the grey levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

SIDE = 32
"""Height and width of an image in pixels."""

EDGE = 0.5
"""Width of the logistic profile of an edge, in pixels."""

RADIUS = 7.5
"""Mean radius of the body in pixels: the geometric mean of its half axes."""

SQUASH = 2.5
"""Latent coordinates well inside +-SQUASH are mapped almost linearly."""

NUISANCE = {
    "position": 2,
    "size": 1,
    "phase": 1,
    "polarity": 1,
    "background": 4,
    "body": 4,
    "stripes": 4,
    "eye": 4,
    "waves": 12,
}
"""Uniforms of an image before those of its clutter, by what they set. A colour has four: brightness and three hues."""

FIXED = sum(NUISANCE.values())
WAVES = 2
CLUTTER = 9
"""Uniforms of one piece of clutter: place (2), size, aspect, angle and colour (4)."""


class Form(NamedTuple):
    """Form of a figure, each (B,): what the latent sets, in the order of its coordinates.

    Attributes:
        orientation: angle of the body's long axis, radians.
        aspect: long over short axis of the body.
        stripe_direction: angle of the stripes, radians.
        stripe_frequency: periods of the stripes in one radius.
        eye_offset: place of the eye along the long axis, in half axes from the centre.
        lobes: amplitude of the threefold term of the outline, relative to its radius.
        stripe_bend: curvature of the stripes, 1 / radius.
        eye_size: size of the eye relative to the body.
    """

    orientation: Tensor
    aspect: Tensor
    stripe_direction: Tensor
    stripe_frequency: Tensor
    eye_offset: Tensor
    lobes: Tensor
    stripe_bend: Tensor
    eye_size: Tensor


def form(latent: Tensor) -> Form:
    """Form of the figures of latents (B, m), m <= 8; what has no coordinate is at the middle of its range.

    v = (u / c) / sqrt(1 + (u / c)^2) in (-1, 1), c = SQUASH, is strictly increasing. Its slope falls like |u|^-3,
    slower than that of any sigmoid with exponential tails, which would hide outlying latents.
    """
    squashed = latent / SQUASH / (1 + (latent / SQUASH).square()).sqrt()
    v = torch.nn.functional.pad(squashed, (0, len(Form._fields) - latent.shape[1])).unbind(1)
    widest = math.radians(70)
    return Form(
        orientation=widest * v[0],
        aspect=1.75 * 1.3 ** v[1],
        stripe_direction=widest * v[2],
        stripe_frequency=1.1 * 1.5 ** v[3],
        eye_offset=0.5 * v[4],
        lobes=0.22 * v[5],
        stripe_bend=0.4 * v[6],
        eye_size=0.3 * 1.4 ** v[7],
    )


def nuisance_size(clutter: int) -> int:
    """Number of uniforms of an image with `clutter` pieces of clutter."""
    return FIXED + CLUTTER * clutter


def render(
    latent: Tensor, nuisance: Tensor, shift: float = 4.0, colour: float = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Images in [0, 1].

    What belongs to a whole image is computed in the type of `latent` (use float64) and only pixels in `dtype`: an
    image then has the same bits in a batch of any size.

    Args:
        latent: (B, m), m from 1 to 8.
        nuisance: (B, `nuisance_size`(clutter)) in (0, 1); uniform and independent for `kdsim.problems.images`.
        shift: the figure's centre is within +-shift pixels of the image's, in both directions.
        colour: saturation, 0 (grey) to 1.
        dtype: floating type of the pixels.

    Returns:
        (B, 3, 32, 32) in `dtype`, on the device of the arguments.
    """

    def plane(value: Tensor) -> Tensor:
        return value[..., None, None].to(dtype)  # (B,) -> (B, 1, 1); (B, 3) -> (B, 3, 1, 1)

    parts = nuisance[:, :FIXED].split(list(NUISANCE.values()), 1)
    part = {name: values if values.shape[1] > 1 else values[:, 0] for name, values in zip(NUISANCE, parts, strict=True)}
    axis = torch.arange(SIDE, dtype=dtype, device=latent.device) - (SIDE - 1) / 2
    x, y = axis[None, None, :], axis[None, :, None]  # columns, rows

    canvas = _background(x, y, part, colour, plane)  # (B, 3, 32, 32)
    pieces = (nuisance.shape[1] - FIXED) // CLUTTER
    for piece in nuisance[:, FIXED:].unflatten(1, (pieces, CLUTTER)).unbind(1):
        canvas = _over(canvas, _ellipse(x, y, piece, plane), plane(_hue(0.2 + 0.6 * piece[:, 5], piece[:, 6:], colour)))

    centre = shift * (2 * part["position"] - 1)  # (B, 2) pixels
    radius = RADIUS * (0.88 + 0.24 * part["size"])
    inside, stripe, eye = _figure(
        Form(*(plane(value) for value in form(latent))),
        (x - plane(centre[:, 0])) / plane(radius),
        (y - plane(centre[:, 1])) / plane(radius),
        plane(radius),
        plane(2 * math.pi * part["phase"]),
    )
    sign = _sign(part["polarity"])
    body, stripes, eyes = (
        plane(_hue(0.5 + sign * (low + span * part[name][:, 0]), part[name][:, 1:], colour))
        for name, low, span in (("body", 0.10, 0.08), ("stripes", 0.28, 0.12), ("eye", -0.40, 0.06))
    )
    body = body + stripe[:, None] * (stripes - body)
    return _over(_over(canvas, inside, body), eye, eyes).clamp(0, 1)


def quantised(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, rounded to the nearest of 256 levels."""
    return (255 * images).round().to(torch.uint8)


def _figure(f: Form, x: Tensor, y: Tensor, radius: Tensor, phase: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coverage of body, stripes and eye, each (B, 32, 32) in [0, 1]; x, y in radii from the figure's centre."""
    # Along the axes of the body, where its outline without lobes is the unit circle.
    cos, sin, stretch = f.orientation.cos(), f.orientation.sin(), f.aspect.sqrt()
    along, across = (x * cos + y * sin) / stretch, (y * cos - x * sin) * stretch
    distance = (along.square() + across.square() + 1e-6).sqrt()  # the constant keeps the centre differentiable
    cosine = along / distance
    outline = 1 + f.lobes * cosine * (4 * cosine.square() - 3)  # 4 c^3 - 3 c = cos 3 angle
    inside = torch.sigmoid((outline - distance) * (radius / EDGE))

    cos, sin = f.stripe_direction.cos(), f.stripe_direction.sin()
    level = (y * cos - x * sin) + f.stripe_bend * (x * cos + y * sin).square()
    stripe = 0.5 + 0.5 * torch.sin(2 * math.pi * f.stripe_frequency * level + phase)

    from_eye = ((along - f.eye_offset).square() + across.square() + 1e-6).sqrt()
    eye = torch.sigmoid((f.eye_size - from_eye) * (radius / EDGE))
    return inside, stripe, eye


def _background(
    x: Tensor, y: Tensor, part: dict[str, Tensor], colour: float, plane: Callable[[Tensor], Tensor]
) -> Tensor:
    """A colour with two faint gratings of any direction, (B, 3, 32, 32)."""
    values = part["background"]
    canvas = plane(_hue(0.5 - _sign(part["polarity"]) * (0.08 + 0.16 * values[:, 0]), values[:, 1:], colour))
    for wave in part["waves"].split(12 // WAVES, 1):
        frequency, angle = 2 * math.pi * (0.02 + 0.16 * wave[:, 0]), 2 * math.pi * wave[:, 1]
        across = plane(frequency * angle.cos()) * x + plane(frequency * angle.sin()) * y
        texture = torch.sin(across + plane(2 * math.pi * wave[:, 2]))
        strength = 0.02 + 0.05 * (wave[:, 3:] * colour + wave[:, 3:4] * (1 - colour))  # grey: equal in all channels
        canvas = canvas + plane(strength) * texture[:, None]
    return canvas


def _ellipse(x: Tensor, y: Tensor, piece: Tensor, plane: Callable[[Tensor], Tensor]) -> Tensor:
    """Coverage of one soft ellipse anywhere in the image, (B, 32, 32)."""
    centre = SIDE * (piece[:, :2] - 0.5)
    size, stretch, angle = 1.5 + 2 * piece[:, 2], (1 + 3 * piece[:, 3]).sqrt(), math.pi * piece[:, 4]
    x, y, cos, sin = x - plane(centre[:, 0]), y - plane(centre[:, 1]), plane(angle.cos()), plane(angle.sin())
    along, across = (x * cos + y * sin) / plane(size * stretch), (y * cos - x * sin) * plane(stretch / size)
    distance = (along.square() + across.square() + 1e-6).sqrt()
    return torch.sigmoid((1 - distance) * plane(size / EDGE))


def _sign(uniform: Tensor) -> Tensor:
    """+1 or -1, equally likely: whether the figure is brighter or darker than the background."""
    return torch.where(uniform < 0.5, -1.0, 1.0).to(uniform.dtype)


def _hue(brightness: Tensor, uniforms: Tensor, colour: float) -> Tensor:
    """Colour (B, 3) of a mean brightness (B,), its deviations from grey drawn by uniforms (B, 3)."""
    return brightness[:, None] + 0.35 * colour * (uniforms - uniforms.mean(1, keepdim=True))


def _over(canvas: Tensor, coverage: Tensor, colours: Tensor) -> Tensor:
    """`colours` laid over the canvas (B, 3, 32, 32) where `coverage` (B, 32, 32) is one."""
    return canvas + coverage[:, None] * (colours - canvas)
