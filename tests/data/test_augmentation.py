"""Crops and flips against a loop over images, the same however images are packed; and normalisation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from kdsim.config import ConfigError, decode, encode
from kdsim.data import CropFlip, Normalisation
from kdsim.rng import Draws, Stream


def draws_of(replicas, visits, seed=11, start=0, first=0):
    """Draws of visits start .. start + visits - 1 of replicas first .. first + replicas - 1."""
    replica = torch.arange(first, first + replicas)[:, None]
    visit = torch.arange(start, start + visits)[None]
    return Draws(torch.full((replicas, 1), seed), replica, visit, Stream.AUGMENTATION, torch.float32, start=start)


def images_of(*shape, dtype=torch.uint8, seed=0):
    values = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (*shape, 3, 32, 32)))
    return values.to(torch.uint8) if dtype == torch.uint8 else (values / 100 - 1).to(dtype)


def loop(augment, images, choices):
    """numpy: pad, crop, mirror, one image at a time."""
    out = np.empty(images.shape, images.numpy().dtype)
    mode = {"zero": "constant", "reflect": "reflect"}[augment.fill]
    sides = ((0, 0), (augment.padding,) * 2, (augment.padding,) * 2)
    cases = zip(images.numpy(), *choices.reshape(3, -1).tolist(), strict=True)
    for number, (image, row, column, flip) in enumerate(cases):
        crop = np.pad(image, sides, mode)[:, row : row + 32, column : column + 32]
        out[number] = crop[:, :, ::-1] if flip else crop
    return torch.from_numpy(out)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("fill", ["zero", "reflect"])
@pytest.mark.parametrize(("padding", "flip"), [(4, True), (4, False), (0, True), (1, True), (31, True)])
def test_it_equals_a_loop_over_images(dtype, fill, padding, flip):
    augment, images, draws = CropFlip(padding, fill, flip), images_of(60, dtype=dtype), draws_of(1, 60)
    found = augment(images, draws)
    assert found.dtype == dtype and found.shape == images.shape
    assert torch.equal(found, loop(augment, images, augment.choices(draws)))


def test_every_crop_and_flip_equals_the_loop():
    choices = torch.cartesian_prod(torch.arange(9), torch.arange(9), torch.arange(2)).T  # (3, 162)
    images = images_of(162)
    for fill in ("zero", "reflect"):
        augment = CropFlip(4, fill)
        assert torch.equal(augment.apply(images, choices), loop(augment, images, choices))


def test_infinite_pixels_do_not_spoil_the_fill():
    images = torch.full((20, 3, 32, 32), torch.inf)
    found = CropFlip()(images, draws_of(1, 20))
    assert not found.isnan().any() and (found == 0).any()


def test_the_images_given_are_left_alone():
    images = images_of(8)
    before = images.clone()
    CropFlip()(images, draws_of(1, 8))
    assert torch.equal(images, before)


# Reproducible, however packed -------------------------------------------------------------------


@pytest.mark.parametrize("augment", [CropFlip(), CropFlip(fill="reflect"), CropFlip(flip=False)], ids=repr)
def test_packing_does_not_matter(augment):
    images = images_of(3, 10)  # replicas, visits
    whole = augment(images, draws_of(3, 10, start=6))
    assert torch.equal(whole, augment(images, draws_of(3, 10, start=6)))
    for replica in range(3):
        alone = augment(images[replica], draws_of(1, 10, start=6, first=replica))
        assert torch.equal(alone, whole[replica])
        for visit in range(10):
            one = augment(images[replica, visit][None], draws_of(1, 1, start=6 + visit, first=replica))
            assert torch.equal(one[0], whole[replica, visit])
    any_order = torch.tensor([7, 2, 9, 0])
    draws = replace(draws_of(3, 10, start=6), visit=6 + any_order[None], start=None)
    assert torch.equal(augment(images[:, any_order], draws), whole[:, any_order])
    chunk = augment.choices(draws_of(3, 40))  # drawn ahead for many steps
    assert torch.equal(augment.apply(images, chunk[..., 6:16]), whole)


def test_seed_replica_and_visit_all_matter():
    augment = CropFlip()
    first = augment.choices(draws_of(1, 400))
    for other in (draws_of(1, 400, seed=12), draws_of(1, 400, first=1), draws_of(1, 400, start=400)):
        assert (first == augment.choices(other)).all(0).double().mean() < 0.05  # 1 in 162 by chance


def test_what_the_words_mean():
    draws = draws_of(2, 30)
    row, column, flip = CropFlip(3).choices(draws)
    crop, mirror = draws.words(0).double() / 2**32, draws.words(1).double() / 2**32
    assert torch.equal(7 * row + column, (49 * crop).floor().long())
    assert torch.equal(flip == 1, mirror >= 0.5)


def test_crops_do_not_depend_on_whether_images_are_flipped():
    with_flip, without = CropFlip().choices(draws_of(2, 50)), CropFlip(flip=False).choices(draws_of(2, 50))
    assert torch.equal(with_flip[:2], without[:2]) and with_flip[2].any() and not without[2].any()


def test_crops_and_flips_are_uniform():
    row, column, flip = CropFlip().choices(draws_of(4, 8000)).flatten(1)
    counts = ((row * 9 + column) * 2 + flip).bincount(minlength=162)
    assert len(counts) == 162
    assert 1e-4 < stats.chisquare(counts.numpy()).pvalue < 1 - 1e-4


# Bad input --------------------------------------------------------------------------------------


def test_refusals():
    for settings in ({"padding": -1}, {"padding": 32}, {"padding": 1.0}, {"fill": "edge"}, {"flip": 1}):
        with pytest.raises(ConfigError, match="is not allowed"):
            CropFlip(**settings)
    with pytest.raises(ConfigError, match="stream"):
        CropFlip()(images_of(4), replace(draws_of(1, 4), stream=Stream.LABEL))
    for images in (images_of(5), images_of(2, 3), images_of(4)[0]):
        with pytest.raises(ConfigError, match="one \\(3,\\) for each image"):
            CropFlip()(images, draws_of(1, 4))
    with pytest.raises(ConfigError, match="must be smaller"):
        CropFlip(padding=8)(images_of(4)[..., :8], draws_of(1, 4))
    assert decode(encode(CropFlip(2, "reflect", False)), [CropFlip]) == CropFlip(2, "reflect", False)


# Normalisation ------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_pixels():
    images = images_of(50)
    images[:, 1] //= 3
    found = Normalisation.of(images)
    exact = images.numpy().astype(np.float64) / 255
    assert np.abs(np.array(found.mean) - exact.mean((0, 2, 3))).max() < 1e-14
    assert np.abs(np.array(found.std) - exact.std((0, 2, 3))).max() < 1e-14
    assert decode(encode(found), [Normalisation]) == found


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.float16, 2e-3)])
def test_normalised_images_have_mean_zero_and_variance_one(dtype, error):
    images = images_of(2, 30)
    normalisation = Normalisation.of(images.flatten(0, 1))
    found = normalisation(images, dtype)
    assert found.dtype == dtype and found.shape == images.shape
    mean, std = (
        torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (normalisation.mean, normalisation.std)
    )
    assert (found.double() - (images.double() / 255 - mean) / std).abs().max() < error
    if dtype == torch.float64:
        assert found.mean((0, 1, 3, 4)).abs().max() < 1e-12
        assert (found.var((0, 1, 3, 4), correction=0) - 1).abs().max() < 1e-12


def test_normalisations_that_are_refused():
    constant = images_of(3)
    constant[:, 2] = 7
    with pytest.raises(ConfigError, match="std"):
        Normalisation.of(constant)
    with pytest.raises(ConfigError, match="uint8"):
        Normalisation.of(images_of(3, dtype=torch.float32))
    for mean, std in (((0.5,), (1.0, 1.0)), ((), ()), ((float("nan"),), (1.0,)), ((0.0,), (-1.0,))):
        with pytest.raises(ConfigError):
            Normalisation(mean, std)
    with pytest.raises(ConfigError, match="must be"):
        Normalisation((0.5,), (1.0,))(images_of(3))
