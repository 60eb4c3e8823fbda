"""Image files become the arrays that they show."""

import numpy as np
import pytest

from dlkit.cli.pictures import read_picture
from dlkit.config import ConfigError

Image = pytest.importorskip("PIL.Image")


def save(array, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


def test_a_digit_comes_back(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    path = save(picture, tmp_path / "d.png")
    np.testing.assert_allclose(read_picture(path, (8, 8, 1))[..., 0], picture / 255, atol=1e-6)
    np.testing.assert_allclose(read_picture(path, (8, 8, 1), invert=True)[..., 0], 1 - picture / 255, atol=1e-6)


def test_resizing_averages_over_areas(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    small = read_picture(save(picture, tmp_path / "d.png"), (8, 8, 1))[..., 0]
    blocks = picture.reshape(8, 4, 8, 4).mean((1, 3)) / 255
    np.testing.assert_allclose(small, blocks, atol=1.01 / 255)  # pillow rounds to whole grey values


def test_color_grey_transparency_and_jpeg(tmp_path):
    color = np.zeros((4, 4, 3), np.uint8)
    color[..., 0] = 200
    path = save(color, tmp_path / "c.png")
    assert read_picture(path, (4, 4, 3))[0, 0].tolist() == [np.float32(200 / 255), 0, 0]
    np.testing.assert_allclose(read_picture(path, (4, 4, 1)), 0.299 * 200 / 255, atol=1 / 255)
    clear = np.zeros((4, 4, 4), np.uint8)
    path = save(clear, tmp_path / "t.png")
    assert read_picture(path, (4, 4, 1)).max() == 0
    assert read_picture(path, (4, 4, 1), invert=True).max() == 0  # dark ink on clear paper, and there is no ink
    grey = np.full((8, 8), 100, np.uint8)
    np.testing.assert_allclose(read_picture(save(grey, tmp_path / "g.jpg"), (8, 8, 1)), 100 / 255, atol=2 / 255)


def test_what_is_no_picture(tmp_path):
    text = tmp_path / "t.png"
    text.write_text("not a picture")
    cut = save(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8), tmp_path / "cut.png")
    cut.write_bytes(cut.read_bytes()[:200])
    gif = save(np.zeros((4, 4), np.uint8), tmp_path / "a.gif")
    for path, word in [(tmp_path / "none.png", "no file"), (text, "not a PNG"), (cut, "cut.png"), (gif, "not a PNG")]:
        with pytest.raises(ConfigError, match=word):
            read_picture(path, (8, 8, 1))
    with pytest.raises(ConfigError, match="does not take pictures"):
        read_picture(gif, (64,))
