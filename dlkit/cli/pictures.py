"""Image files as arrays of the shape and range that a model was trained on."""

from pathlib import Path

import numpy as np

from dlkit.config.errors import ConfigError

__all__ = ["read_picture"]

MAX_PIXELS = 50_000_000


def read_picture(path: str | Path, shape: tuple[int, ...], *, invert: bool = False) -> np.ndarray:
    """The picture in a PNG or JPEG file as float32 `[height, width, channels]` in [0, 1].

    It is converted to grey for one channel and to RGB for three (transparent parts become black, or white before an
    inversion), and resized to `shape` by averaging over areas.

    Args:
      path: the file.
      shape: `(height, width)` or `(height, width, channels)` with 1 or 3 channels.
      invert: for dark strokes on light paper, where the model knows light strokes on black.

    Raises:
      ConfigError: there is no such file, it is no picture, it is too large, or the model takes no pictures.
      ImportError: pillow is missing.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError('reading pictures needs pillow: pip install -e ".[train]"') from error
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise ConfigError(f"this model does not take pictures: its input has shape {list(shape)}")
    grey = len(shape) == 2 or shape[2] == 1
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ConfigError(f"{path}: {image.width} x {image.height} pixels are too many")
            rgba = image.convert("RGBA")
            paper = Image.new("RGBA", rgba.size, (255, 255, 255, 255) if invert else (0, 0, 0, 255))
            flat = Image.alpha_composite(paper, rgba).convert("L" if grey else "RGB")
            flat = flat.resize((shape[1], shape[0]), Image.Resampling.BOX)
    except FileNotFoundError:
        raise ConfigError(f"there is no file {str(path)!r}") from None
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise ConfigError(f"{path}: not a PNG or JPEG picture") from None
    except (OSError, SyntaxError, ValueError) as error:  # pillow's errors for damaged files
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: cannot be read as a picture: {error}") from None
    pixels = np.asarray(flat, dtype=np.float32) / np.float32(255)
    pixels = pixels.reshape(shape)
    return np.float32(1) - pixels if invert else pixels
