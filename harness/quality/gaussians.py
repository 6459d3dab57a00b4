"""Whether the mean and covariance of a file are such, before a day goes into images to hold against them."""

import numpy as np
from numpy.typing import NDArray

from pardec.errors import UserError

_ASYMMETRY = 1e-5
"""Of the largest entry: covariances summed in float32 are that far from symmetric at most."""
_ROUNDING = 1e-6
"""Of the trace: how far below zero rounding takes the eigenvalues of a singular covariance."""


def check_gaussian(where: str, mu: NDArray[np.floating], sigma: NDArray[np.floating]) -> None:
    """UserError that opens with ``where`` unless mu [D] is finite and sigma [D, D] a covariance."""
    for name, values in (("mu", mu), ("sigma", sigma)):
        if not np.isfinite(values).all():
            raise UserError(f"{where}: {name} holds NaN or infinite values")
    if np.abs(sigma - sigma.T).max() > _ASYMMETRY * np.abs(sigma).max():
        raise UserError(f"{where}: sigma is not symmetric, so it is no covariance")
    if np.diagonal(sigma).min() < 0:
        raise UserError(f"{where}: sigma has negative variances, so it is no covariance")
    # Far cheaper than eigenvalues: only positive matrices have such a root.
    slack = _ROUNDING * np.trace(sigma) + np.finfo(np.float64).tiny
    try:
        np.linalg.cholesky(sigma + slack * np.eye(len(sigma)))
    except np.linalg.LinAlgError:
        raise UserError(f"{where}: sigma has negative eigenvalues, so it is no covariance") from None
