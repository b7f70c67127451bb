"""Bags of words: bags encoded by how many of their descriptors each word has."""

from skfisher._compat import StrOptions
from skfisher.encoders.words import WordsEncoder
from skfisher.layers.bag_of_words import BagOfWordsPooling

__all__ = ["BagOfWordsEncoder"]


class BagOfWordsEncoder(WordsEncoder):
    r"""Encode each bag by the shares of its descriptors that fall to each of K words.

    The words are the centres :math:`c_k` of clusters of descriptors. A bag of T descriptors
    :math:`x_t` becomes

    .. math:: S_k = \frac{1}{T} \sum_t a_{tk}, \qquad
              a_{tk} = \big[k = \arg\min_j |x_t - c_j|^2\big] \quad \text{or} \quad
              a_t = \operatorname{softmax}_k(-\alpha |x_t - c_k|^2),

    hard [1]_ or soft: K numbers that sum to 1, whatever T. As a histogram, it is compared best by
    its square roots, which ``normalize="power-l2"`` takes.

    Parameters
    ----------
    n_components : int, default=64
        Number of words, K.
    assignment : {"hard", "soft"}, default="hard"
        Whether a descriptor belongs to the nearest word alone. For :class:`JointClassifier` it must
        be "soft".
    ratio : float, default=5
        How many times the weight of the second nearest word the nearest one has, for a descriptor
        in the middle, in soft assignment.
    metric : {"diagonal"}, default=None
        Give every word a diagonal metric of its own, which :class:`JointClassifier` trains: that is
        learned aggregation [2]_. All metrics are `scale_` before that.
    normalize : {"power-l2", "l2"}, default="power-l2"
        "power-l2" takes square roots and scales to unit length, "l2" scales alone, None leaves the
        shares as they are.
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
    VLADEncoder : Where the descriptors of a word lie, beside how many they are.
    FisherVectorEncoder : The same with a mixture in place of the words.

    Notes
    -----
    Distances are computed in float64 where assignment is hard, whatever the descriptors: which of
    two words is nearer is not left to rounding, and of those equally near the first is taken.

    References
    ----------
    .. [1] Csurka, Dance, Fan, Willamowski and Bray (2004), Visual categorization with bags of
       keypoints.
    .. [2] Katharopoulos, Paschalidou, Diou and Delopoulos (2017), Learning local feature
       aggregation functions with backpropagation.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import BagOfWordsEncoder
    >>> words = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]
    >>> encoder = BagOfWordsEncoder(codebook=words, normalize=None)
    >>> bags = [[[1.0, 0.0], [9.0, 1.0], [0.0, 1.0], [1.0, 2.0]], [[9.0, 0.0]]]
    >>> encoder.fit_transform(bags)
    array([[0.75, 0.25, 0.  ],
           [0.  , 1.  , 0.  ]])
    >>> encoder.get_feature_names_out()
    array(['word_k0', 'word_k1', 'word_k2'], dtype=object)
    """

    _parameter_constraints: dict = {
        **WordsEncoder._words_constraints,
        "normalize": [StrOptions({"power-l2", "l2"}), None],
    }

    def __init__(
        self,
        n_components=64,
        *,
        assignment="hard",
        ratio=5,
        metric=None,
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
        self.metric = metric
        self.normalize = normalize
        self.codebook = codebook
        self.max_descriptors = max_descriptors
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state

    def pooling(self):
        """Return the layer that :class:`JointClassifier` trains.

        Returns
        -------
        layer : BagOfWordsPooling
            Training starts at the words that `fit` would find, or at those of `codebook`.
        """
        return BagOfWordsPooling(**self._settings())
