"""VLAD: bags encoded by the residuals of their descriptors from the words of a codebook."""

from numbers import Integral

from sklearn.utils.validation import check_is_fitted

from skfisher._compat import Interval, StrOptions
from skfisher.encoders.words import WordsEncoder
from skfisher.layers.vlad import VLADPooling

__all__ = ["VLADEncoder"]


class VLADEncoder(WordsEncoder):
    r"""Encode each bag by the summed residuals of its descriptors from K words.

    The words are the centres :math:`c_k` of clusters of descriptors. A bag of descriptors
    :math:`x_t` becomes

    .. math:: V_k = \sum_t a_{tk} (x_t - c_k), \qquad
              a_t = \operatorname{softmax}_k(-\alpha |x_t - c_k|^2) \quad \text{or} \quad
              a_{tk} = \big[k = \arg\min_j |x_t - c_j|^2\big],

    with soft or hard assignment. These D K numbers are the vector of locally aggregated descriptors
    [1]_. :class:`JointClassifier` trains the words, and how sharply they are told apart, for the
    labels, which is NetVLAD [2]_.

    Parameters
    ----------
    n_components : int, default=16
        Number of words, K.
    assignment : {"soft", "hard"}, default="soft"
        "soft" shares a descriptor among the words near it; "hard" assigns it to the nearest word
        alone, as in the original VLAD. Soft assignment classifies better.
    ratio : float, default=5
        Ratio of the weights of the nearest and the second nearest word, for a descriptor with the
        mean difference between its squared distances to the two. NetVLAD starts at 100; the smaller
        5 is better without training, and not worse with it.
    tied : bool, default=True
        Whether soft assignment depends on the distances from the words. If not,
        :class:`JointClassifier` trains it as a separate linear map, as in NetVLAD, which starts at
        the distances; without training, nothing changes.
    metric : {"diagonal"}, default=None
        Give every word a diagonal metric of its own, which :class:`JointClassifier` trains; this is
        learned aggregation [3]_. Before training, all metrics equal `scale_`. The sum is divided by
        the number of descriptors.
    moments : {1, 2}, default=1
        2 adds the sums of the squared residuals, another D K numbers. With soft assignment, this is
        the simple form of NetFV [4]_.
    normalize : {"power-l2", "intra", "l2"}, default="power-l2"
        "power-l2" takes signed square roots and scales to unit length; "intra" scales the residuals
        of each word to unit length and then the whole [5]_; "l2" only scales the whole. None does
        not normalise.
    codebook : estimator or array of shape (n_components, n_features), default=None
        The centres, or a scikit-learn clusterer that finds ``cluster_centers_``, such as
        :class:`sklearn.cluster.KMeans` or :class:`sklearn.cluster.MiniBatchKMeans`. If it is
        fitted, it is used as it is; otherwise a clone is fitted. Pipelines and searches clone their
        steps, and a clone is not fitted: wrap a fitted clusterer in
        :class:`sklearn.frozen.FrozenEstimator` there, or pass its centres. With a codebook,
        `n_components` is not used. By default, built-in k-means finds the words.
    max_descriptors : int, default=None
        Find the words among this many descriptors, drawn at random; by default among
        ``max(20000, 256 * n_components)``.
    n_jobs : int, default=None
        Number of threads; None for 1, -1 for all cores. It does not change the result.
    device : str or list of str, default=None
        "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or several devices in a list;
        by default where the descriptors are.
    random_state : int, RandomState instance or None, default=None
        Seed of the draw and of k-means.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_components, n_features)
        The words, float64.
    scale_ : float
        The scale :math:`\alpha` of soft assignment, ``log(ratio)`` over the mean difference
        between the second smallest and the smallest squared distance.
    n_features_in_ : int
        Width of a descriptor.

    See Also
    --------
    BagOfWordsEncoder : Only counts the descriptors of each word.
    FisherVectorEncoder : A mixture instead of words, with variances and weights besides means.
    JointClassifier : Trains the words for the labels.

    Notes
    -----
    A word to which no descriptor of a bag is assigned gets zeros, also after normalisation. With
    hard assignment, distances are always computed in float64, so that rounding does not decide
    which of two words is nearer. If two words are equally near, the first is taken.

    References
    ----------
    .. [1] Jégou, Douze, Schmid and Pérez (2010), Aggregating local descriptors into a compact image
       representation.
    .. [2] Arandjelović, Gronat, Torii, Pajdla and Sivic (2016), NetVLAD: CNN architecture for
       weakly supervised place recognition.
    .. [3] Katharopoulos, Paschalidou, Diou and Delopoulos (2017), Learning local feature
       aggregation functions with backpropagation.
    .. [4] Miech, Laptev and Sivic (2017), Learnable pooling with context gating for video
       classification.
    .. [5] Arandjelović and Zisserman (2013), All about VLAD.

    Examples
    --------
    >>> from skfisher import VLADEncoder
    >>> words = [[0.0, 0.0], [10.0, 0.0]]
    >>> encoder = VLADEncoder(codebook=words, assignment="hard", normalize=None)
    >>> bags = [[[1.0, 0.0], [9.0, 1.0], [0.0, 1.0]], [[12.0, 0.0]]]
    >>> encoder.fit_transform(bags)
    array([[ 1.,  1., -1.,  1.],
           [ 0.,  0.,  2.,  0.]])
    >>> encoder.get_feature_names_out()
    array(['vlad_k0_d0', 'vlad_k0_d1', 'vlad_k1_d0', 'vlad_k1_d1'],
          dtype=object)
    """

    _parameter_constraints: dict = {
        **WordsEncoder._words_constraints,
        "tied": ["boolean"],
        "moments": [Interval(Integral, 1, 2, closed="both")],
        "normalize": [StrOptions({"power-l2", "intra", "l2"}), None],
    }

    def __init__(
        self,
        n_components=16,
        *,
        assignment="soft",
        ratio=5,
        tied=True,
        metric=None,
        moments=1,
        normalize="power-l2",
        codebook=None,
        max_descriptors=None,
        n_jobs=None,
        device=None,
        random_state=None,
    ):
        self.n_components = n_components
        self.assignment = assignment
        self.ratio = ratio
        self.tied = tied
        self.metric = metric
        self.moments = moments
        self.normalize = normalize
        self.codebook = codebook
        self.max_descriptors = max_descriptors
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state

    def blocks(self):
        """Label the columns of encodings by word, for ``PowerL2Normalizer(blocks=...)``.

        Returns
        -------
        labels : ndarray of int of shape (n_features_out,)
            One for the residuals of each word, then one for the squares of each.
        """
        check_is_fitted(self)
        return self.pooling().blocks({"centers": self.cluster_centers_})

    def pooling(self):
        """Return the layer that :class:`JointClassifier` trains.

        Returns
        -------
        layer : VLADPooling
            Training starts at the words that `fit` would find, or at those of `codebook`.
        """
        settings = self._settings()
        if not self.tied and self.metric is not None:
            raise ValueError(
                f"metric={self.metric!r} is about distances, but tied=False assigns without them: "
                "take tied=True, or metric=None."
            )
        return VLADPooling(**settings, tied=self.tied, moments=self.moments)

    def _of_soft_assignment(self):
        return {"tied": not self.tied}
