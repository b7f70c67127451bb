"""Estimators fitted to shards that the workers of a cluster read."""

from skfisher.bags.sharded_values import worked_on_by
from skfisher.dask.workers import Workers, check_shards

__all__ = ["fit"]


def fit(estimator, shards, y=None, *, client=None, timeout=60.0, verbose=False):
    """Fit an estimator to shards; the workers of a Dask cluster go through the descriptors.

    The same as ``estimator.fit(shards, y)``, to the last bit, whatever the number of workers: the
    iterations run here, and each pass over the descriptors is done by the workers. They open the
    shards by their paths, which have to lead to the same folders everywhere, and use one thread
    of BLAS for each of their threads. Random draws of descriptors are read here.

    Parameters
    ----------
    estimator : estimator or pipeline
        An encoder, a :class:`~skfisher.DiagonalGaussianMixture`, a
        :class:`~skfisher.DescriptorTransformer`, or a pipeline of these. `n_jobs` counts for
        nothing; `device` must be None. The second layer of a :class:`~skfisher.DeepFisherEncoder`
        is fitted here, to the bags that its windows are drawn of.
    shards : ShardedBags
        Or some bags of one, such as ``shards[:1000]``.
    y : array-like of shape (n_bags,), default=None
        Labels, for pipelines that end in a classifier: that is fitted here, to encodings that
        are held in memory here.
    client : distributed.Client, default=None
        By default the one made last.
    timeout : float, default=60
        Seconds to wait for a worker while the cluster has none.
    verbose : bool, default=False
        Whether to print a line after each pass over the data.

    Returns
    -------
    estimator : object
        The same, fitted: an ordinary local estimator.

    Raises
    ------
    TypeError
        If `shards` are no `ShardedBags`, or `client` is no client; if `estimator` is trained
        jointly with its classifier, which one process does: its own ``fit`` takes shards.
    ValueError
        If the client is closed, or a shard was changed, or what an estimator refuses.
    FileNotFoundError
        If a worker does not find a shard; it names both.
    RuntimeError
        If a worker lacks this package, or has another version; it names the worker.
    LostWorkersError
        If all workers are gone, or the scheduler. As after Ctrl-C, the estimator then holds its
        last whole iteration, if there was one.

    See Also
    --------
    transform : Encode shards.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from distributed import Client
    >>> from skfisher import FisherVectorEncoder, ShardedBags
    >>> from skfisher.dask import fit
    >>> rng = np.random.default_rng(0)
    >>> stream = (rng.normal(size=(20, 3)) for _ in range(10))
    >>> folder = tempfile.TemporaryDirectory()
    >>> shards = ShardedBags.write(stream, folder.name, bags_per_shard=4)
    >>> with Client(processes=False, dashboard_address=None) as client:
    ...     encoder = fit(FisherVectorEncoder(2, random_state=0), shards, client=client)
    >>> encoder.transform([rng.normal(size=(30, 3))]).shape
    (1, 14)
    """
    check_shards(shards, whole=False)
    theirs = worked_on_by(shards, Workers(client, timeout, verbose))
    return estimator.fit(theirs) if y is None else estimator.fit(theirs, y)
