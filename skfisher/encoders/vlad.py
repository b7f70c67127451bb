"""VLAD: bags encoded by the residuals of their descriptors from the words of a codebook."""

from numbers import Integral

from sklearn.utils.validation import check_is_fitted

from skfisher._compat import Interval, StrOptions
from skfisher.encoders.words import WordsEncoder
from skfisher.layers.vlad import VLADPooling

__all__ = ["VLADEncoder"]


class VLADEncoder(WordsEncoder):
    r"""Encode each bag by the residuals of its descriptors from K words, added up.

    The words are the centres :math:`c_k` of clusters of descriptors. A bag of descriptors
    :math:`x_t` becomes

    .. math:: V_k = \sum_t a_{tk} (x_t - c_k), \qquad
              a_t = \operatorname{softmax}_k(-\alpha |x_t - c_k|^2) \quad \text{or} \quad
              a_{tk} = \big[k = \arg\min_j |x_t - c_j|^2\big],

    soft or hard: D K numbers, the vector of locally aggregated descriptors [1]_. With
    :class:`JointClassifier` the words, and how sharply they are told apart, are trained for the
    labels: that is NetVLAD [2]_.

    Parameters
    ----------
    n_components : int, default=16
        Number of words, K.
    assignment : {"soft", "hard"}, default="soft"
        Whether a descriptor is shared among the words near it, or belongs to the nearest alone.
        Hard assignment is that of the first VLAD; soft assignment classifies better.
    ratio : float, default=5
        How many times the weight of the second nearest word the nearest one has, for a descriptor
        in the middle. NetVLAD starts at 100; the smaller 5 is better without training, and not
        worse with it.
    tied : bool, default=True
        Whether soft assignment is by the distances from the words. If not,
        :class:`JointClassifier` trains it as a linear map of its own, as NetVLAD has it, which
        starts at the distances; without training nothing changes.
    metric : {"diagonal"}, default=None
        Give every word a diagonal metric of its own, which :class:`JointClassifier` trains: that is
        learned aggregation [3]_. All metrics are `scale_` before that. The sum is divided by the
        number of descriptors.
    moments : {1, 2}, default=1
        2 adds the sums of the squared residuals, another D K numbers: with soft assignment the
        simple form of NetFV [4]_.
    normalize : {"power-l2", "intra", "l2"}, default="power-l2"
        "power-l2" takes signed square roots and scales to unit length, "intra" scales the residuals
        of each word to unit length and then the whole [5]_, "l2" scales alone, and None leaves the
        sums as they are.
    codebook : estimator or array of shape (n_components, n_features), default=None
        The centres, or a clusterer of scikit-learn that finds ``cluster_centers_``, such as
        :class:`sklearn.cluster.KMeans` or :class:`sklearn.cluster.MiniBatchKMeans`. Fitted, it is
        used as it is; not fitted, a clone is fitted. As cloning (by pipelines and searches) makes a
        fitted one unfitted, wrap it in :class:`sklearn.frozen.FrozenEstimator` there, or pass its
        centres. With it, `n_components` is not used. By default k-means of our own.
    max_descriptors : int, default=None
        Find the words among so many descriptors, drawn at random; by default among
        ``max(20000, 256 * n_components)``.
    n_jobs : int, default=None
        Number of threads; None for 1, -1 for all cores. It does not change the result.
    device : str or list of str, default=None
        "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or several devices in a list;
        by default where the descriptors are.
    random_state : int, RandomState instance or None, default=None
        Of the draw and of k-means.

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
    BagOfWordsEncoder : How many descriptors a word has, and no more.
    FisherVectorEncoder : A mixture in place of the words: variances and weights beside the means.
    JointClassifier : Trains the words for the labels.

    Notes
    -----
    A word that no descriptor of a bag is assigned to has zeros, also after normalisation.
    Distances are computed in float64 where assignment is hard, whatever the descriptors: which of
    two words is nearer is not left to rounding, and of those equally near the first is taken.

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
