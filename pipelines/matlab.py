"""One array out of a MATLAB 5 file, which is how the labels of Oxford Flowers-102 are published."""

from pathlib import Path

import numpy as np

from clever_fast.errors import UserError


def read_array(file: Path, name: str) -> np.ndarray:
    """The values of the numeric array `name`, flat, as int64.

    Raises:
        UserError: the file is damaged or holds no such array.
    """
    from scipy.io import loadmat

    try:
        found = loadmat(file, variable_names=[name])
    except Exception as error:  # scipy raises anything for a damaged file
        raise UserError(f"{file} is no MATLAB 5 file: {' '.join(str(error).split()) or type(error).__name__}") from None
    if name not in found:
        raise UserError(f"{file} holds no array {name!r}: it is not the published file")
    return np.asarray(found[name]).ravel().astype(np.int64)
