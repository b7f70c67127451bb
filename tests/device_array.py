"""A stand-in for CuPy, at least as strict, for machines without a GPU.

`StandIn` is a module of device arrays that NumPy computes. It shows that nothing mixes host and
device arrays, that work happens on the device that holds its arrays, and that no function,
method or keyword is used that CuPy lacks; only a GPU can show more. What CuPy has is written
down here as far as this package needs it; `tests/arrays/test_device_array.py` compares with
CuPy itself.
"""

import threading
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np

UFUNC = ("out", "casting", "dtype")
REDUCTION = ("axis", "out", "keepdims")
SUM = ("axis", "dtype", "out", "keepdims")

# Functions of CuPy and their keywords.
FUNCTIONS = {
    **dict.fromkeys(
        """abs add arctanh copysign divide exp exp2 expm1 isfinite isnan log log1p log2 logaddexp
        maximum minimum multiply sign sqrt square subtract tanh""".split(),
        UFUNC,
    ),
    "arange": ("dtype",),
    "argmax": ("axis", "dtype", "out", "keepdims"),
    "array_equal": ("equal_nan",),
    "ascontiguousarray": ("dtype",),
    "clip": ("out",),
    "concatenate": ("axis", "out", "dtype", "casting"),
    "cumsum": ("axis", "dtype", "out"),
    "einsum": (),
    "empty": ("dtype", "order"),
    "empty_like": ("dtype", "order", "shape"),
    "eye": ("dtype",),
    "full": ("dtype", "order"),
    "hstack": ("dtype", "casting"),
    "matmul": ("out", "axes", "axis", "keepdims", "casting", "dtype", "order"),
    "ones": ("dtype", "order"),
    "ones_like": ("dtype", "order", "shape"),
    "repeat": ("axis",),
    "round": ("decimals", "out"),
    "searchsorted": ("side", "sorter"),
    "stack": ("axis", "out", "dtype", "casting"),
    "sum": SUM,
    "tile": (),
    "vstack": ("dtype", "casting"),
    "where": (),
    "zeros": ("dtype", "order"),
    "zeros_like": ("dtype", "order", "shape"),
    "add.reduceat": ("axis", "dtype", "out"),
    "fft.irfft": ("n", "axis", "norm"),
    "fft.rfft": ("n", "axis", "norm"),
    "linalg.eigh": ("UPLO",),
}
# Methods of CuPy's arrays and their arguments in order; None where they go by position alone.
METHODS = {
    "all": REDUCTION,
    "any": REDUCTION,
    "argmax": ("axis", "out", "dtype", "keepdims"),
    "argmin": ("axis", "out", "dtype", "keepdims"),
    "astype": ("dtype", "order", "casting", "subok", "copy"),
    "clip": ("min", "max", "out"),
    "conj": (),
    "copy": ("order",),
    "cumsum": ("axis", "dtype", "out"),
    "fill": ("value",),
    "flatten": ("order",),
    "item": (),
    "max": REDUCTION,
    "mean": ("axis", "dtype", "out", "keepdims"),
    "min": REDUCTION,
    "nonzero": (),
    "prod": SUM,
    "ravel": ("order",),
    "repeat": ("repeats", "axis"),
    "reshape": None,  # lengths, any number of them
    "round": ("decimals", "out"),
    "squeeze": ("axis",),
    "std": ("axis", "dtype", "out", "ddof", "keepdims"),
    "sum": SUM,
    "swapaxes": None,
    "take": ("indices", "axis", "out"),
    "tolist": (),
    "transpose": None,
    "var": ("axis", "dtype", "out", "ddof", "keepdims"),
    "view": ("dtype",),
}
ATTRIBUTES = ("dtype", "flags", "itemsize", "nbytes", "ndim", "shape", "size", "strides")

_thread = threading.local()


def current_device():
    """Return the number of the device that this thread works on."""
    return getattr(_thread, "device", 0)


class Device:
    """A CUDA device, which a ``with`` statement makes the current one of its thread."""

    def __init__(self, device=None):
        self.id = current_device() if device is None else int(device)
        self._before = []

    def __enter__(self):
        self._before.append(current_device())
        _thread.device = self.id
        return self

    def __exit__(self, *exception):
        _thread.device = self._before.pop()

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return hash(self.id)

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    __str__ = __repr__


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that refuses to meet NumPy arrays, or to become one unasked."""

    __imatmul__ = None  # CuPy has none

    def __init__(self, values, device=None):
        self._values = values
        self._device = current_device() if device is None else device

    device = property(lambda self: Device(self._device))
    base = property(lambda self: None)
    T = property(lambda self: wrapped(self._values.T))

    def get(self):
        """Return a copy on the host; from whichever device."""
        return self._values.copy()

    def set(self, values, stream=None):
        """Copy an array of the host into this one."""
        assert type(values) is np.ndarray
        assert values.flags.c_contiguous
        assert (values.shape, values.dtype) == (self.shape, self.dtype)
        unwrapped(self)[...] = values

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
        name = {"absolute": "abs", "power": None}.get(ufunc.__name__, ufunc.__name__)
        assert method == "__call__", f"numpy.{ufunc.__name__}.{method} got a device array"
        check_keywords(f"numpy.{name}", kwargs, UFUNC)
        if out:
            kwargs["out"] = tuple(unwrapped(x) for x in out)
        result = ufunc(*(unwrapped(x) for x in inputs), **kwargs)
        return out[0] if out else wrapped(result)

    def __array_function__(self, func, types, args, kwargs):
        raise TypeError(f"numpy.{func.__name__} got a device array: use the array's own library")

    def __getitem__(self, key):
        return wrapped(unwrapped(self)[unwrapped_key(key)])

    def __setitem__(self, key, value):
        unwrapped(self)[unwrapped_key(key)] = unwrapped(value)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __len__(self):
        return len(self._values)

    def __bool__(self):
        return bool(self._values)

    def __float__(self):
        return float(self._values)

    def __int__(self):
        return int(self._values)

    def __repr__(self):
        return f"DeviceArray({self._values!r}, device={self._device})"

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        if name in ATTRIBUTES:
            return getattr(self._values, name)
        if name not in METHODS:
            raise AttributeError(f"cupy.ndarray has no {name} (or tests/device_array.py lacks it)")
        return lambda *args, **kwargs: self._call(name, args, kwargs)

    def _call(self, name, args, kwargs):
        known = METHODS[name]
        if known is None:
            check_keywords(name, kwargs, ("order", "copy"))
        else:
            assert len(args) <= len(known), f"cupy.ndarray.{name} got {len(args)} arguments"
            kwargs |= zip(known, args, strict=False)
            args = ()
            check_keywords(name, kwargs, known)
        if name == "fill":
            args = (kwargs.pop("value"),)
        out = kwargs.get("out")
        kwargs = {key: unwrapped(value) for key, value in kwargs.items()}
        result = getattr(unwrapped(self), name)(*args, **kwargs)
        return wrapped(result) if out is None else out


def check_keywords(name, kwargs, known):
    for keyword in kwargs:
        assert keyword in known, f"CuPy's {name} takes no {keyword!r}"


def wrapped(x):
    """Return what NumPy computed as the current device would hold it."""
    if isinstance(x, tuple):
        return tuple(map(wrapped, x))
    return DeviceArray(np.asarray(x)) if isinstance(x, (np.ndarray, np.generic)) else x


def unwrapped(x):
    """Return the values of an argument of CuPy, if CuPy would take it here."""
    if isinstance(x, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: it met a device array")
    if isinstance(x, (list, tuple)):
        return type(x)(map(unwrapped, x))
    if not isinstance(x, DeviceArray):
        return x
    if x._device != current_device():
        raise RuntimeError(
            f"an array on device {x._device} was used while device {current_device()} is current"
        )
    return x._values


def unwrapped_key(key):
    """Return an index, which CuPy takes from the host too and moves to the device."""
    if isinstance(key, tuple):
        return tuple(map(unwrapped_key, key))
    return key if isinstance(key, np.ndarray) else unwrapped(key)


class Namespace:
    """Functions of NumPy on device arrays, as far as CuPy has them."""

    def __init__(self, prefix=""):
        self._prefix = prefix

    def __getattr__(self, name):
        return lookup(self._prefix + name)


def lookup(name):
    if name not in FUNCTIONS:
        raise AttributeError(f"cupy has no {name} (or tests/device_array.py lacks it)")
    function = np
    for part in name.split("."):
        function = getattr(function, part)

    def on_device(*args, **kwargs):
        check_keywords(name, kwargs, FUNCTIONS[name])
        out = kwargs.get("out")
        kwargs = {key: unwrapped(value) for key, value in kwargs.items()}
        result = function(*map(unwrapped, args), **kwargs)
        return wrapped(result) if out is None else out

    for method in ("reduceat",):  # of the ufuncs that CuPy has it for
        if f"{name}.{method}" in FUNCTIONS:
            setattr(on_device, method, lookup(f"{name}.{method}"))
    return on_device


class StandIn(ModuleType):
    """A module in the place of CuPy, with some number of devices."""

    ndarray = DeviceArray
    finfo, float32, float64, int32, int64 = np.finfo, np.float32, np.float64, np.int32, np.int64
    inf, nan = np.inf, np.nan
    fft, linalg = Namespace("fft."), Namespace("linalg.")

    def __init__(self, n_devices=1):
        super().__init__("cupy")
        self.__version__ = "stand-in"
        runtime = SimpleNamespace(getDeviceCount=lambda: n_devices)
        stream = SimpleNamespace(synchronize=lambda: None)
        self.cuda = SimpleNamespace(
            Device=Device, runtime=runtime, get_current_stream=lambda: stream
        )

    @staticmethod
    def asarray(x, dtype=None):
        """Return an array on the current device: `x` itself, or a copy from elsewhere."""
        if isinstance(x, DeviceArray):
            if x._device == current_device():
                return x if dtype is None else x.astype(dtype, copy=False)
            x = x._values
        return DeviceArray(np.array(x, dtype=dtype))

    @staticmethod
    def take(x, indices, axis=None, out=None):
        """Leave it to the method, which `x` may be no array to have."""
        return x.take(indices, axis, out)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lookup(name)


class Memory:
    """The memory of a stand-in's device: `n_bytes` at most for a group of rows."""

    n_bytes = 2**40
    n_recovered = 0

    class error(MemoryError):
        """What the library raises."""

    def __init__(self, device):
        self.device = device

    def free(self):
        return type(self).n_bytes

    def recover(self):
        type(self).n_recovered += 1
        return self.free()


class Lane:
    """A way to a stand-in's device, which remembers what it was used for."""

    log: ClassVar[list] = []

    def __init__(self, device, rows, number):
        self._device = device

    def start(self, rows, function):
        if rows.nbytes > Memory.n_bytes:
            raise Memory.error(f"{rows.nbytes} bytes")
        with Device(self._device):
            x = StandIn.asarray(rows.read())
            self.log.append((self._device, len(x)))
            return function(x)

    def fetch(self, results):
        with Device(self._device):
            return [result.get() for result in results]

    def close(self):
        self.log.append((self._device, "closed"))
