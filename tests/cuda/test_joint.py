"""Joint training by the kernels, run on the CPU, and by the array code."""

import numpy as np

from skfisher import Bags, JointFisherSVC


def test_joint_training_takes_the_kernels_and_ends_where_array_code_does(
    kernels_on_cpu, rng, monkeypatch
):
    y = np.arange(24) % 2
    values = rng.normal(size=(24, 12, 4)) * np.where(y, 1.6, 1.0)[:, None, None]
    bags = Bags.from_list(list(values.astype(np.float32)))
    model = JointFisherSVC(n_components=3, max_iter=2, batch_size=8, random_state=0)
    by_kernels = model.fit(bags, y).decision_function(bags)
    for name in ("posterior_vjp", "descriptor_vjp", "moments"):
        assert any(name in launched for launched in kernels_on_cpu.launched), name
    monkeypatch.setenv("SKFISHER_FUSED", "0")
    by_arrays = model.fit(bags, y).decision_function(bags)
    # the support vector machine is trained to a tolerance, which rounding may tip over
    np.testing.assert_allclose(by_kernels, by_arrays, atol=1e-3 * np.abs(by_arrays).max())
