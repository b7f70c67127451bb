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

    with hard [1]_ or soft assignment: K numbers that sum to 1, whatever T is. Histograms are best
    compared by the square roots of their entries, which ``normalize="power-l2"`` takes.

    Parameters
    ----------
    n_components : int, default=64
        Number of words, K.
    assignment : {"hard", "soft"}, default="hard"
        "hard" assigns a descriptor to the nearest word alone; "soft" shares it among the words near
        it. :class:`JointClassifier` needs "soft".
    ratio : float, default=5
        In soft assignment, the ratio of the weights of the nearest and the second nearest word, for
        a descriptor with the mean difference between its squared distances to the two.
    metric : {"diagonal"}, default=None
        Give every word a diagonal metric of its own, which :class:`JointClassifier` trains; this is
        learned aggregation [2]_. Before training, all metrics equal `scale_`.
    normalize : {"power-l2", "l2"}, default="power-l2"
        "power-l2" takes square roots and scales to unit length; "l2" only scales. None does not
        normalise.
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
    VLADEncoder : Also encodes where the descriptors of a word lie.
    FisherVectorEncoder : Uses a mixture instead of words.

    Notes
    -----
    With hard assignment, distances are always computed in float64, so that rounding does not decide
    which of two words is nearer. If two words are equally near, the first is taken.

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
