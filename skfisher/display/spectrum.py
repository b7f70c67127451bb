"""Pictures of the eigenvalues that second-order encodings have."""

import copy

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skfisher.arrays.libraries import to_host
from skfisher.display.pyplot import axes_of, import_pyplot
from skfisher.encoders.second_order import SecondOrderPooling
from skfisher.ops.triangle import side_of, triangle_vjp

__all__ = ["SpectrumDisplay"]


class SpectrumDisplay:
    """Eigenvalues of the matrices of bags, from the largest down, before and after the function.

    Lines are medians over bags, bands go from the tenth to the ninetieth per cent, and everything
    is a share of the largest eigenvalue of a bag. A root lifts the small ones.

    Use `from_estimator` to make it from a fitted encoder.

    Parameters
    ----------
    before : ndarray of shape (n_bags, n_eigenvalues)
        Eigenvalues of the statistic, descending.
    after : ndarray of shape (n_bags, n_eigenvalues)
        Eigenvalues after the function, descending.
    names : tuple of two str, default=("before", "after")
        Their names in the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes drawn on.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    lines_ : list of two matplotlib Line2D
        The medians.

    See Also
    --------
    SecondOrderPooling : The encoder, and its functions.

    Examples
    --------
    >>> from skfisher import SecondOrderPooling, SpectrumDisplay
    >>> from skfisher.datasets import load_digits_patches
    >>> bags = load_digits_patches().data[:50]
    >>> display = SpectrumDisplay.from_estimator(SecondOrderPooling("covariance").fit(bags), bags)
    >>> display.before.shape
    (50, 16)
    """

    def __init__(self, *, before, after, names=("before", "after")):
        self.before = before
        self.after = after
        self.names = names

    @classmethod
    def from_estimator(cls, estimator, X, *, ax=None, **kwargs):
        """Display the eigenvalues of the matrices that encode bags.

        Parameters
        ----------
        estimator : SecondOrderPooling
            Fitted.
        X : Bags, list of arrays, 3-D array or table
            The bags.
        ax : matplotlib Axes, default=None
            Where to draw, by default a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        display : SpectrumDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If `estimator` is something else.
        """
        import_pyplot(cls)
        if not isinstance(estimator, SecondOrderPooling):
            raise TypeError(
                f"estimator is a {type(estimator).__name__}: pass a fitted SecondOrderPooling."
            )
        check_is_fitted(estimator)
        name = estimator.statistic.replace("_", " ")
        function = estimator.function.replace("_", " and ").replace("newton and", "Newton and")
        if estimator.function == "power":
            function = f"power {estimator.power:g}"
        display = cls(
            before=_eigenvalues(estimator, X, function="identity"),
            after=_eigenvalues(estimator, X),
            names=(name, f"its {function}"),
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, smallest=1e-6):
        """Draw the eigenvalues by their rank.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw, by default a new figure.
        smallest : float, default=1e-6
            Lower end of the axis, as a share of the largest eigenvalue; 0 cannot be shown.

        Returns
        -------
        display : SpectrumDisplay
            Itself.
        """
        ax = axes_of(self, ax)
        self.lines_ = []
        for name, values in zip(self.names, (self.before, self.after), strict=True):
            largest = np.abs(values).max(axis=1, keepdims=True)
            shares = np.maximum(values / np.where(largest > 0, largest, 1), smallest)
            low, median, high = np.percentile(shares, [10, 50, 90], axis=0)
            ranks = np.arange(1, len(median) + 1)
            (line,) = ax.plot(ranks, median, label=name)
            ax.fill_between(ranks, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
            self.lines_.append(line)
        ax.set(yscale="log", ylim=(smallest, 1.3), xlabel="rank", ylabel="eigenvalue / the largest")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _eigenvalues(encoder, X, **changes):
    """Return the eigenvalues of the matrices of bags, not normalised, from the largest down."""
    encoder = copy.copy(encoder).set_params(norm=None, normalize=None, **changes)
    encodings = to_host(encoder.transform(X))
    encodings = np.asarray(encodings, dtype=np.float64)
    # the gradient of a map that keeps inner products is its inverse
    matrices = triangle_vjp(encodings, side_of(encodings.shape[1]))
    return np.linalg.eigvalsh(matrices)[:, ::-1]
