"""PyTorch is imported when it is asked for, and only then."""

import subprocess
import sys

import pytest


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_the_package_does_not_import_pytorch():
    program = "import sys, skfisher, skfisher.torch; assert 'torch' not in sys.modules"
    assert run(program).returncode == 0


def test_without_pytorch_the_extra_is_named():
    program = (
        "import sys\n"
        "class Nowhere:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Nowhere())\n"
        "from skfisher.torch import FisherVector\n"
    )
    result = run(program)
    assert result.returncode != 0
    assert "needs PyTorch, which is not installed: install skfisher[torch]" in result.stderr


def test_other_names_are_attribute_errors():
    import skfisher.torch

    assert "FisherVector" in dir(skfisher.torch)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        skfisher.torch.Nothing  # noqa: B018
