"""The figure has a cell for each example and method, and shows the sign."""

import sys

import matplotlib.image
import numpy as np
import pytest

import gradkit as gk
from gradkit import attribution as ga

IMAGES = np.linspace(0, 1, 2 * 6 * 5).reshape(2, 6, 5)
SIGNED = np.where(np.arange(5) < 2, -2.0, 1.0) * np.ones((2, 6, 1))


def cells(figure):
    return [axes for axes in figure.axes if axes.images and axes.get_label() != "<colorbar>"]


def test_a_row_for_each_example_and_a_column_for_each_method():
    figure = ga.show(IMAGES, {"a": SIGNED, "b": SIGNED[..., None]}, labels=["x", "y"], title="t")
    grid = cells(figure)
    assert len(grid) == 2 * 3
    assert [axes.get_title() for axes in grid[:3]] == ["image", "a", "b"]
    assert [grid[0].get_ylabel(), grid[3].get_ylabel()] == ["x", "y"]
    assert figure.get_suptitle() == "t"


@pytest.mark.parametrize("attributions", [SIGNED, [SIGNED, SIGNED], {}])
def test_one_several_or_no_attribution(attributions):
    several = len(attributions) if not isinstance(attributions, np.ndarray) else 1
    assert len(cells(ga.show(IMAGES, attributions))) == 2 * (1 + several)


def test_colours_are_symmetric_about_zero():
    drawn = cells(ga.show(IMAGES, SIGNED))[1].images[-1]
    assert drawn.get_clim() == (-1, 1)
    blue, red = drawn.to_rgba(-1.0), drawn.to_rgba(1.0)
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    np.testing.assert_allclose(drawn.get_array()[0], [-1, -1, 0.5, 0.5, 0.5])
    assert drawn.get_alpha()[0, 0] == 1


def test_colour_images_channels_first_and_zero_or_nan_attributions():
    images = np.random.default_rng(0).normal(size=(2, 3, 6, 5))
    a = np.zeros_like(images)
    a[0, 0, 0, 0] = np.nan
    figure = ga.show(images, a, channel_axis=1)
    assert len(cells(figure)) == 4
    assert cells(figure)[0].images[0].get_array().shape == (6, 5, 3)


def test_the_figure_is_saved(tmp_path):
    ga.show(IMAGES, {"a": SIGNED}, path=tmp_path / "a.png")
    pixels = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    reddest = (pixels[..., 0] - pixels[..., 2]).max()
    bluest = (pixels[..., 2] - pixels[..., 0]).max()
    assert min(reddest, bluest) > 0.3


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"gradkit\[plot\]"):
        ga.show(IMAGES, SIGNED)


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        ((IMAGES[0], SIGNED), ["no images", "[6, 5]", "channel_axis=1"]),
        ((IMAGES, {"a": SIGNED[:1]}), ["'a' does not fit", "[2, 6, 5]", "[1, 6, 5]"]),
        ((IMAGES, SIGNED, ["one"]), ["one label per image", "expected: 2", "got:      1"]),
    ],
)
def test_errors_name_what_does_not_fit(arguments, pieces):
    images, attributions, *labels = arguments
    with pytest.raises(gk.AttributionInputError) as error:
        ga.show(images, attributions, labels=labels[0] if labels else None)
    for piece in pieces:
        assert piece in str(error.value)
