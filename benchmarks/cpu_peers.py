"""What skfisher is compared with on the CPU: the same encodings by other code."""

import ctypes
import os

import numpy as np
from sklearn.mixture import GaussianMixture

__all__ = ["plain_encode", "pytorch", "scikit_image", "scikit_learn_mixture", "vlfeat"]


def plain_encode(bags, mixture):
    """Fisher vectors the straightforward way: one bag at a time, whole arrays, in float32."""
    weights, means, variances = (p.astype(np.float32) for p in mixture)
    k, d = means.shape
    encodings = np.empty((len(bags), (2 * d + 1) * k), np.float32)
    linear, quadratic = (means / variances).T.copy(), (-0.5 / variances).T.copy()
    constant = np.log(weights) - 0.5 * (np.log(variances) + means**2 / variances).sum(axis=1)
    root = np.sqrt(weights)[:, None]
    for i, x in enumerate(bags):
        x2 = x * x
        p = x @ linear + x2 @ quadratic + constant
        p -= p.max(axis=1, keepdims=True)
        np.exp(p, out=p)
        p /= p.sum(axis=1, keepdims=True)
        s0, s1, s2 = p.sum(axis=0)[:, None], p.T @ x, p.T @ x2
        n = np.float32(len(x))
        f_w = (s0 - n * weights[:, None]) / (n * root)
        f_means = (s1 - means * s0) / (n * root * np.sqrt(variances))
        f_variances = ((s2 - 2 * means * s1 + means**2 * s0) / variances - s0) / (
            n * np.float32(2**0.5) * root
        )
        encodings[i] = np.concatenate([f_w.ravel(), f_means.ravel(), f_variances.ravel()])
    return encodings


def scikit_learn_mixture(mixture):
    peer = GaussianMixture(len(mixture.weights), covariance_type="diag")
    weights, means, variances = (p.astype(np.float32) for p in mixture)
    peer.weights_, peer.means_, peer.covariances_ = weights, means, variances
    peer.precisions_cholesky_ = 1 / np.sqrt(variances)
    return peer


def scikit_image(bags, mixture):
    try:
        from skimage.feature import fisher_vector as encode_one
    except ImportError:
        return {}
    peer = scikit_learn_mixture(mixture)
    return {"scikit-image": lambda: [encode_one(x, peer) for x in bags]}


def pytorch(bags, mixture):
    """Return the same in operations of PyTorch, bag by bag on one thread, if it is there."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    w, mu, v = (torch.from_numpy(p.astype(np.float32)) for p in mixture)
    linear, quadratic = (mu / v).T.contiguous(), (-0.5 / v).T.contiguous()
    constant = torch.log(w) - 0.5 * (torch.log(v) + mu**2 / v).sum(1)
    root = torch.sqrt(w)[:, None]

    def encode_one(x):
        x = torch.from_numpy(x)
        x2, n = x * x, len(x)
        p = torch.softmax(x @ linear + x2 @ quadratic + constant, 1)
        s0, s1, s2 = p.sum(0)[:, None], p.T @ x, p.T @ x2
        f_w = (s0 - n * w[:, None]) / (n * root)
        f_means = (s1 - mu * s0) / (n * root * torch.sqrt(v))
        f_variances = ((s2 - 2 * mu * s1 + mu**2 * s0) / v - s0) / (n * 2**0.5 * root)
        return torch.cat([f_w.ravel(), f_means.ravel(), f_variances.ravel()])

    def encode():
        with torch.inference_mode():
            f = torch.stack([encode_one(x) for x in bags])
            f = torch.sign(f) * torch.sqrt(torch.abs(f))
            return f / torch.linalg.vector_norm(f, dim=1, keepdim=True)

    return {"PyTorch": encode}


def vlfeat(bags, mixture):
    """Return VLFeat's improved Fisher vectors, of power 1/2 and length 1, if it is there."""
    path = os.environ.get("VLFEAT")
    if not path:
        return {}
    library = ctypes.CDLL(path)
    library.vl_set_num_threads(1)
    weights, means, variances = (np.ascontiguousarray(p, np.float32) for p in mixture)
    k, d = means.shape
    out = np.empty(2 * k * d, np.float32)
    real, improved = 1, 3  # VL_TYPE_FLOAT; square root and length
    size, pointer = ctypes.c_uint64, lambda array: ctypes.c_void_p(array.ctypes.data)

    def encode(bags=bags):  # which keeps the arrays alive
        for x in bags:
            library.vl_fisher_encode(
                pointer(out), real, pointer(means), size(d), size(k), pointer(variances),
                pointer(weights), pointer(x), size(len(x)), improved,
            )  # fmt: skip

    encode(bags[:1])
    expected = plain_encode(bags[:1], mixture)[0, k:]  # without the weights, which VLFeat lacks
    expected = np.sign(expected) * np.sqrt(np.abs(expected))
    assert np.abs(out - expected / np.linalg.norm(expected)).max() < 1e-2 * np.abs(out).max()
    return {"VLFeat": encode}
