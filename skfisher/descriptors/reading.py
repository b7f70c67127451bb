"""Images and recordings from files: whole, or an error that names the file."""

import io
from pathlib import Path

import numpy as np
from scipy.io import wavfile

from skfisher.bags.npy import open_npy
from skfisher.bags.paths import naming

__all__ = ["decode_image", "decode_wav", "import_opencv", "read_array", "read_image", "read_wav"]


def import_opencv(who):
    """Return OpenCV, or say who needs it.

    Parameters
    ----------
    who : str
        The function or class that does.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            f"{who} needs OpenCV, which is not installed. Install skfisher[images]."
        ) from error
    return cv2


def read_array(path, reader):
    """Return what `reader` makes of a file, or name it.

    Parameters
    ----------
    path : str
    reader : callable
    """
    with naming(path):
        return reader(path)


def read_image(path):
    """Return an image as it is, by OpenCV, or the array in a ``.npy`` file.

    Parameters
    ----------
    path : str

    Returns
    -------
    image : array of shape (height, width), or (height, width, 3) in the order red, green, blue
        uint8, or whatever else the file holds. Transparency is left out.
    """
    if path.endswith(".npy"):
        return open_npy(Path(path), None)
    cv2 = import_opencv("reading images")
    with open(path, "rb") as file:
        image = decode_image(file.read(), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_image(content, flags):
    """Return a whole image, as OpenCV decodes it.

    Parameters
    ----------
    content : bytes
        Of the file.
    flags : int
        Of OpenCV: which channels and dtypes.

    Raises
    ------
    ValueError
        If it is no image, or a JPEG image that is cut short.
    """
    cv2 = import_opencv("reading images")
    # OpenCV fills up JPEG files that are cut short. The marker of the end is no part of the
    # compressed pixels, which begin after the last marker of a scan.
    if content.startswith(b"\xff\xd8") and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise ValueError("it is a JPEG image that is cut short")
    image = None
    if content:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if image is None:
        raise ValueError("OpenCV finds no image in it" if content else "it is empty")
    return image


def read_wav(path):
    """Return the signal of a WAV file, and its samples per second.

    Parameters
    ----------
    path : str

    Returns
    -------
    signal : array of shape (n_samples,) or (n_samples, n_channels)
    sample_rate : int
    """
    with open(path, "rb") as file:
        return decode_wav(file.read())


def decode_wav(content):
    """Return the signal of a WAV file that is whole, and its samples per second.

    Parameters
    ----------
    content : bytes
        Of the file.

    Raises
    ------
    ValueError
        If it is no WAV file, or cut short.
    """
    # scipy only warns of files cut short, and reads what there is.
    kind, order = content[:4], {b"RIFF": "little", b"RIFX": "big"}.get(content[:4])
    if order is None or content[8:12] != b"WAVE":
        raise ValueError(f"it is not a WAV file: it begins with {kind!r}")
    end = 12
    while end < len(content):
        size = int.from_bytes(content[end + 4 : end + 8], order)
        end += 8 + size + size % 2
    declared = 8 + int.from_bytes(content[4:8], order)
    if {declared + declared % 2, end} != {len(content) + len(content) % 2}:
        raise ValueError(f"it is {len(content)} bytes long, but its header says otherwise")
    sample_rate, signal = wavfile.read(io.BytesIO(content))
    return signal, sample_rate
