"""The handwritten digits that come with scikit-learn: real data with no download."""

import numpy as np

from dlkit.data.dataset import Arrays


def digits() -> Arrays:
    """1,797 handwritten digits: x float32 `[1797, 8, 8, 1]` in [0, 1] (multiples of 1/16), y int32 `[1797]`.

    These are the test images of the UCI set "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998),
    by 13 writers; each pixel counts the ink in a 4 x 4 block of the scan.

    Raises:
        ImportError: scikit-learn is not installed.

    >>> digits()
    Arrays('digits', 1797 examples: x float32[8, 8, 1], y int32[])
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('digits() needs scikit-learn: pip install -e ".[train]"') from error
    images, labels = load_digits(return_X_y=True)
    x = (np.asarray(images) / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    classes = tuple(str(k) for k in range(10))
    return Arrays(name="digits", classes=classes, x=x, y=np.asarray(labels).astype(np.int32))
