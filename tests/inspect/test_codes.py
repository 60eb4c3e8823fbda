"""The pictures of autoencoders hold the numbers that were given, row by row, and their headings fit."""

import jax
import numpy as np
import pytest
from scipy import stats

from dlkit import data, inspect, models, train
from dlkit.cli.draw_codes import draw_codes

matplotlib = pytest.importorskip("matplotlib")
RNG = np.random.default_rng(0)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
    return figures


def shown(figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def fits(figure) -> bool:
    """Whether the heading lies inside the picture."""
    box, page = figure.axes[0].title.get_window_extent(), figure.bbox
    return bool(page.x0 <= box.x0 and box.x1 <= page.x1 and box.y1 <= page.y1)


def test_reconstructions_are_rows(tmp_path, drawn):
    images, seen, rebuilt = RNG.random((3, 5, 4, 4, 1))
    inspect.reconstructions(images, rebuilt, tmp_path / "a.png", columns=3)
    inspect.reconstructions(images, rebuilt, tmp_path / "b.png", seen=2 * seen, title="denoising_mnist_again")
    for figure, rows in ((drawn[0], (images[:3], rebuilt[:3])), (drawn[1], (images, np.minimum(2 * seen, 1), rebuilt))):
        np.testing.assert_array_equal(shown(figure), np.concatenate([np.concatenate(r[..., 0], 1) for r in rows]))
        assert fits(figure)
    with pytest.raises(ValueError, match=r"one shape, got images \(5, 4, 4\), rebuilt \(3, 4, 4\)"):
        inspect.reconstructions(images, rebuilt[:3], tmp_path / "c.png")


def test_a_grid_is_filled_row_by_row_with_black_at_its_end(tmp_path, drawn):
    images = RNG.random((5, 2, 3, 3))
    inspect.picture_grid(images, tmp_path / "a.png", columns=3)
    grid = shown(drawn[0])
    assert grid.shape == (4, 9, 3)
    np.testing.assert_array_equal(grid[2:, 3:6], images[4])
    assert not grid[2:, 6:].any()
    apart = shown(inspect.picture_grid(images, columns=3, gap=1))
    assert apart.shape == (5, 11, 3)
    np.testing.assert_array_equal(apart[3:, 4:7], images[4])
    np.testing.assert_array_equal(apart[2], 0.4)
    with pytest.raises(ValueError, match=r"got shape \(5, 2\)"):
        inspect.picture_grid(np.ones((5, 2)), tmp_path / "b.png")


def test_a_scatter_has_a_color_and_a_name_for_each_class(tmp_path, drawn):
    codes, labels = RNG.standard_normal((9, 2)), np.arange(9) % 3
    inspect.latent_scatter(codes, labels, tmp_path / "a.png", classes=["cat", "dog", "owl"])
    axes = drawn[0].axes[0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["cat", "dog", "owl"]
    np.testing.assert_array_equal(axes.collections[1].get_offsets(), codes[1::3])
    assert len({tuple(c.get_facecolor()[0]) for c in axes.collections}) == 3
    assert [t.get_text() for t in axes.texts] == ["cat", "dog", "owl"]
    np.testing.assert_allclose(axes.texts[2].get_position(), np.median(codes[2::3], axis=0))
    assert inspect.latent_scatter(codes, labels).axes  # the figure itself, where nothing is written
    with pytest.raises(ValueError, match="wider, got shape"):
        inspect.latent_scatter(codes[:, :1], labels, tmp_path / "b.png")


def test_the_plane_has_equal_steps_of_probability():
    """Under the prior every cell is as likely as any other; the first number grows to the right, the second upwards."""
    plane = inspect.latent_plane(4).reshape(4, 4, 2)
    np.testing.assert_allclose(stats.norm.cdf(plane[0, :, 0]), [0.125, 0.375, 0.625, 0.875], atol=1e-6)
    np.testing.assert_array_equal(plane[::-1, 0, 1], plane[0, :, 0])
    assert plane.dtype == np.float32
    with pytest.raises(ValueError, match="at least 1, got 0"):
        inspect.latent_plane(0)


@pytest.mark.parametrize("around", [lambda model: model, train.Policy(compute="bfloat16")], ids=["", "half"])
def test_a_denoising_run_shows_what_was_hidden_and_what_became_of_it(tmp_path, drawn, around):
    model = around(models.autoencoder((8, 8, 1), (8,), 2, mask=0.5))
    (path,) = draw_codes(tmp_path, model, model.init(jax.random.key(0)), None, data.digits())
    assert path.name == "reconstructions.png"
    given, seen, rebuilt = np.split(shown(drawn[0]), 3)
    assert set(np.unique(np.abs(seen - np.minimum(2 * given, 1)) * seen)) == {0}  # kept ones are doubled
    assert 0.3 < (seen[given > 0] == 0).mean() < 0.7
    assert rebuilt.std() > 0


@pytest.mark.parametrize(
    "around", [lambda model: model, train.Policy("bfloat16", "bfloat16", "bfloat16")], ids=["", "half"]
)
def test_a_vae_of_two_numbers_shows_samples_the_plane_and_the_codes(tmp_path, drawn, around):
    """Under a policy too, which puts another layer around the model."""
    model = around(models.vae((8, 8, 1), (8,), 2))
    made = draw_codes(tmp_path, model, model.init(jax.random.key(0)), None, data.digits())
    assert [p.name for p in made] == ["reconstructions.png", "samples.png", "manifold.png", "latent.png"]
    assert [shown(f).shape for f in drawn[1:3]] == [(80, 80), (160, 160)]
