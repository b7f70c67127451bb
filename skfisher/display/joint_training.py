"""A picture of joint training, epoch by epoch."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skfisher.display.pyplot import axes_of, import_pyplot
from skfisher.joint.fisher_svc import JointFisherSVC

__all__ = ["JointTrainingDisplay"]

# A component with less than this share of its fair weight, 1/K, is as good as lost.
COLLAPSED = 0.01


class JointTrainingDisplay:
    r"""Losses, scores and the lightest component over the epochs of joint training.

    The panels lie above one another: the loss of the training bags, with that of validation
    bags if there were any; the score of the validation bags; and K times the smallest weight
    of the mixture, over a dashed line at 0.01, below which a component is collapsing. Where early
    stopping went back to an epoch, a dotted line marks it.

    Use `from_estimator` to make it from a fitted estimator.

    Parameters
    ----------
    loss : array-like of shape (n_epochs,)
        Mean loss of the training bags in each epoch.
    smallest_weight : array-like of shape (n_epochs,)
        K times the weight of the lightest component after each epoch. With a mixture for each
        class it is the smallest of them all.
    validation_loss : array-like of shape (n_epochs,), default=None
        Mean loss of the validation bags after each epoch; NaN where there was none.
    validation_score : array-like of shape (n_epochs,), default=None
        Their accuracy, or mean average precision; NaN likewise.
    best_iter : int, default=None
        The epoch to mark, counted from 1; 0 is the frozen model.
    same_loss : bool, default=True
        Whether the training and the validation loss are the same function, in one panel. If
        not, the second one is the squared hinge loss, in a panel of its own.

    Attributes
    ----------
    axes_ : ndarray of two to four matplotlib Axes
        Those of the panels, from top to bottom.
    ax_ : matplotlib Axes
        The first of them, the losses.
    figure_ : matplotlib Figure
        The figure of `axes_`.
    lines_ : dict of matplotlib Line2D
        The curves, by the names of the parameters.

    See Also
    --------
    JointFisherSVC : The classifier that is trained.
    MixtureDisplay : A mixture in the plane.

    Examples
    --------
    >>> from skfisher import JointFisherSVC, JointTrainingDisplay
    >>> from skfisher.datasets import load_digits_patches
    >>> digits = load_digits_patches(patch_size=3)
    >>> X, y = digits.data[:200], digits.target[:200]
    >>> model = JointFisherSVC(n_components=2, max_iter=5, random_state=0).fit(X, y)
    >>> display = JointTrainingDisplay.from_estimator(model)
    >>> display.loss.shape
    (5,)
    """

    def __init__(
        self,
        *,
        loss,
        smallest_weight,
        validation_loss=None,
        validation_score=None,
        best_iter=None,
        same_loss=True,
    ):
        self.loss = loss
        self.smallest_weight = smallest_weight
        self.validation_loss = validation_loss
        self.validation_score = validation_score
        self.best_iter = best_iter
        self.same_loss = same_loss

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Display the history of a fitted estimator.

        Validation values have gaps for fits that continued with `warm_start` but without validation
        bags.

        Parameters
        ----------
        estimator : JointFisherSVC
            Fitted.
        ax : matplotlib Axes, default=None
            Where to draw, by default a new figure. The panels share its place.

        Returns
        -------
        display : JointTrainingDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If `estimator` is something else.
        NotFittedError
            If it is not fitted.
        ValueError
            If it was not trained for any epoch.
        """
        import_pyplot(cls)
        if not isinstance(estimator, JointFisherSVC):
            raise TypeError(
                f"estimator is a {type(estimator).__name__}: pass a fitted JointFisherSVC, the "
                "last step if it is in a pipeline."
            )
        check_is_fitted(estimator)
        history = {name: np.asarray(values) for name, values in estimator.history_.items()}
        if not history:
            raise ValueError(
                "estimator is a frozen model, trained for 0 epochs: there is no history to show."
            )
        loss = history["loss"]
        validation = {
            name: history[name]
            for name in ("validation_loss", "validation_score")
            if name in history and np.isfinite(history[name]).any()
        }
        went_back = estimator.best_iter_ < estimator.n_iter_
        display = cls(
            loss=loss,
            smallest_weight=history["smallest_weight"],
            best_iter=estimator.best_iter_ if went_back else None,
            # Signals that are no measure of success are validated by another loss.
            same_loss=estimator.loss not in ("linear", "dual"),
            **validation,
        )
        return display.plot(ax=ax)

    def plot(self, ax=None):
        """Draw the panels.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw, by default a new figure. The panels share its place.

        Returns
        -------
        display : JointTrainingDisplay
            Itself.
        """
        scored = self.validation_score is not None
        validated = self.validation_loss is not None
        n_panels = 2 + scored + (validated and not self.same_loss)
        ax = axes_of(self, ax, figsize=(6, 1 + 1.6 * n_panels))
        self.axes_ = _stacked_panels(ax, n_panels)
        self.ax_, self.figure_ = self.axes_[0], ax.figure
        epochs = np.arange(1, len(self.loss) + 1)
        self.lines_ = {}

        def draw(panel, name, **options):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            # a point that has no neighbours makes no line
            known = np.pad(np.isfinite(values), 1)
            lonely = np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:]).tolist()
            (self.lines_[name],) = panel.plot(
                epochs, values, marker="o", markevery=lonely, **options
            )

        losses, *middle, weights = self.axes_
        draw(losses, "loss", label="training")
        losses.set_ylabel("loss")
        if validated and self.same_loss:
            draw(losses, "validation_loss", label="validation", color="C1")
            losses.legend(frameon=False)
        elif validated:
            draw(middle[0], "validation_loss", color="C1")
            middle[0].set_ylabel("squared hinge\n(validation)")
        if scored:
            draw(middle[-1], "validation_score", color="C1")
            middle[-1].set_ylabel("score")
        draw(weights, "smallest_weight", color="C2")
        weights.axhline(COLLAPSED, color="0.4", linestyle="--", linewidth=1)
        weights.annotate(
            "collapse", (1, COLLAPSED), xytext=(-2, 2), color="0.4", fontsize="small", ha="right",
            xycoords=weights.get_yaxis_transform(), textcoords="offset points",
        )  # fmt: skip
        lowest = min(COLLAPSED, *np.maximum(self.smallest_weight, COLLAPSED / 1000))
        weights.set(xlabel="epoch", ylabel=r"smallest $K w$", yscale="log", ylim=(lowest / 2, 2))
        weights.xaxis.get_major_locator().set_params(integer=True)
        for panel in self.axes_:
            panel.spines[["top", "right"]].set_visible(False)
            if self.best_iter is not None:
                panel.axvline(self.best_iter, color="0.4", linestyle=":", linewidth=1)
        return self


def _stacked_panels(ax, n_panels):
    """Return an array of panels above one another in the place of `ax`, with one axis of epochs."""
    ax.set_axis_off()
    height = 1 / (n_panels + 0.15 * (n_panels - 1))
    panels = []
    for number in range(n_panels):
        bottom = 1 - height - 1.15 * height * number
        panel = ax.inset_axes([0, bottom, 1, height], sharex=panels[0] if panels else None)
        panel.tick_params(labelbottom=number == n_panels - 1)
        panel.yaxis.set_label_coords(-0.13, 0.5)
        panels.append(panel)
    return np.array(panels)
