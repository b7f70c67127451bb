"""The part of the build that pyproject.toml has no words for: the native kernels, in C.

They are optional: where they do not compile, installation goes on without them. They know nothing
of Python, so one wheel serves every version of it on a platform.
"""

from glob import glob

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext


class BuildKernels(build_ext):
    """Builds a library that Python loads but does not import."""

    def get_ext_filename(self, fullname):
        """Return a name that nothing takes for a module."""
        return "/".join(fullname.split(".")) + ".native.so"


class PlatformWheel(bdist_wheel):
    """A wheel of one platform for any Python 3."""

    def get_tag(self):
        """Return the tags of Python, of its binary interface, and of the platform."""
        return "py3", "none", super().get_tag()[2]


kernels = Extension(
    "skfisher.native.kernels",
    sources=["skfisher/native/kernels.c"],
    depends=sorted(glob("skfisher/native/*.h")),
    # What Clang and GCC do by themselves differs: products and sums are to be fused, and square
    # roots of negative numbers, which are never taken, need not be told to the C library.
    extra_compile_args=[
        "-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden", "-g0",
    ],
    optional=True,
)  # fmt: skip
setup(ext_modules=[kernels], cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel})
