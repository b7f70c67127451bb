"""Small data sets as bags: one that scikit-learn brings along, and readers of local folders.

Nothing is downloaded. A reader looks in the folder `data_home`, by default the one that the
environment variable SKFISHER_DATA names, and says what to put there if it finds nothing. A file
that is damaged, cut short or of another kind is named by a ValueError.
"""

import os
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from skfisher.bags.bags import Bags
from skfisher.bags.paths import naming
from skfisher.descriptors.patches import ImagePatches
from skfisher.descriptors.reading import decode_image, import_opencv, read_wav
from skfisher.descriptors.sound import deltas, mfcc

__all__ = ["load_digits_patches", "load_fsdd", "load_japanese_vowels", "load_scene15"]

FSDD_RATE = 8000


def load_digits_patches(*, patch_size=4, step=1, positions=None):
    """Load scikit-learn's handwritten digits, each image as a bag of its patches.

    Parameters
    ----------
    patch_size : int or tuple (height, width), default=4
        Size of a patch in pixels. The images are 8 x 8 pixels.
    step : int or tuple (rows, columns), default=1
        Distance between patches in pixels.
    positions : float, default=None
        Append the position of the centre of each patch, times this number, as in `ImagePatches`.

    Returns
    -------
    digits : Bunch
        With the fields

        - ``data``: `Bags`, 1797 bags of float64 patches;
        - ``target``: ndarray of shape (1797,), the digits;
        - ``target_names``: the names of the 10 classes, as strings;
        - ``images``: ndarray of shape (1797, 8, 8), the images, from 0 to 16;
        - ``DESCR``: a description.

    See Also
    --------
    sklearn.datasets.load_digits : The images.

    Examples
    --------
    >>> from skfisher.datasets import load_digits_patches
    >>> load_digits_patches(patch_size=4).data.lengths[:3]
    array([25, 25, 25])
    """
    digits = load_digits()
    patches = ImagePatches(patch_size, step=step, positions=positions)
    return Bunch(
        data=patches.fit_transform(digits.images),
        target=digits.target,
        target_names=digits.target_names.astype(str),
        images=digits.images,
        DESCR="Patches of scikit-learn's handwritten digits (Alpaydin and Kaynak 1998), 10 classes",
    )


def load_fsdd(*, data_home=None):
    """Load the Free Spoken Digit Dataset: recordings as bags of short-time frames.

    Each frame of 25 ms, 10 ms apart, is described by 20 mel-frequency cepstral coefficients and
    their 20 deltas.

    Parameters
    ----------
    data_home : str or path-like, default=None
        The folder that contains the folder ``fsdd`` with recordings ``7_jackson_32.wav``; by
        default the one that the environment variable SKFISHER_DATA names.

    Returns
    -------
    recordings : Bunch
        With the fields

        - ``data``: `Bags`, float32, 40 features per frame;
        - ``target``: ndarray of shape (n_recordings,), the digits;
        - ``target_names``: the names of the 10 classes, as strings;
        - ``groups``: ndarray of str, the speakers, for scikit-learn's group splitters;
        - ``filenames``: list of str;
        - ``DESCR``: a description.

    Raises
    ------
    FileNotFoundError
        If there are no recordings; the message says where to get them and where to put them.
    ValueError
        If a file is not a whole recording of this set, or is not named like one.

    See Also
    --------
    skfisher.descriptors.mfcc : The coefficients.
    skfisher.descriptors.deltas : Their rates of change.
    """
    paths = _find(
        "fsdd/*_*_*.wav",
        data_home,
        "recordings of the Free Spoken Digit Dataset, such as 7_jackson_32.wav from the folder "
        "'recordings' of https://github.com/Jakobovski/free-spoken-digit-dataset",
    )
    frames, target, groups = [], [], []
    for path in paths:
        with naming(path):
            digit, speaker = _read_name(path.stem)
            coefficients = mfcc(_read_wav(path), FSDD_RATE)
        frames.append(np.hstack([coefficients, deltas(coefficients)]))
        target.append(digit)
        groups.append(speaker)
    return Bunch(
        data=Bags.from_list(frames),
        target=np.array(target),
        target_names=np.arange(10).astype(str),
        groups=np.array(groups),
        filenames=[str(path) for path in paths],
        DESCR="The Free Spoken Digit Dataset and its contributors, CC BY-SA 4.0: spoken digits, "
        "20 MFCC and 20 deltas per frame, 10 classes, speakers in groups",
    )


def _read_name(stem):
    """Return the digit and the speaker of a recording."""
    digit, *speaker = stem.split("_")
    if len(speaker) != 2 or digit not in list("0123456789"):
        raise ValueError("its name is not of the form DIGIT_SPEAKER_NUMBER.wav")
    return int(digit), speaker[0]


def _read_wav(path):
    """Return the signal of a WAV file that has the sample rate of the set."""
    signal, sample_rate = read_wav(path)
    if sample_rate != FSDD_RATE:
        raise ValueError(
            f"it has {sample_rate} samples per second, but the recordings of this set have "
            f"{FSDD_RATE}"
        )
    return signal


def load_japanese_vowels(*, data_home=None):
    """Load Japanese Vowels: utterances of nine speakers as bags of 12 cepstral coefficients.

    Parameters
    ----------
    data_home : str or path-like, default=None
        The folder that contains ``japanese_vowels/JapaneseVowels_TRAIN.ts``; by default the one
        that the environment variable SKFISHER_DATA names.

    Returns
    -------
    utterances : Bunch
        With the fields

        - ``data``: `Bags`, float64, 12 features per frame, in the order of time;
        - ``target``: ndarray of shape (n_utterances,), the speakers, from 0;
        - ``target_names``: the names of the 9 speakers, as strings from 1;
        - ``DESCR``: a description.

    Raises
    ------
    FileNotFoundError
        If there is no such file; the message says where to get it and where to put it.
    ValueError
        If a line of the file is not an utterance, or holds values that are missing or not finite.
    """
    (path,) = _find(
        "japanese_vowels/JapaneseVowels_TRAIN.ts",
        data_home,
        "the training part of Japanese Vowels, JapaneseVowels_TRAIN.ts, from "
        "https://timeseriesclassification.com/description.php?Dataset=JapaneseVowels",
    )
    with naming(path):
        bags, speakers = _read_series(path.read_text(encoding="utf-8"))
    target_names, target = np.unique(speakers, return_inverse=True)
    return Bunch(
        data=Bags.from_list(bags),
        target=target,
        target_names=target_names,
        DESCR="Japanese Vowels (Kudo, Toyama and Shimbo 1999), training part: 12 LPC cepstrum "
        "coefficients per frame, 9 speakers",
    )


def _read_series(text):
    """Return the series and the labels of a file in the format .ts."""
    settings, labels, series, speakers = {}, [], [], []
    for number, line in enumerate(text.splitlines(), 1):
        if "@data" not in settings:
            key, _, value = line.strip().lower().partition(" ")
            settings[key], labels = value, settings.get("@classlabel", "").split()[1:]
            continue
        if not line.strip():
            continue
        try:
            *dimensions, speaker = line.strip().split(":")
            values = np.array([[float(v) for v in row.split(",")] for row in dimensions]).T
        except ValueError as error:
            raise ValueError(f"line {number} is not a series of numbers: {error}") from error
        width = int(settings.get("@dimensions", series[0].shape[1] if series else len(dimensions)))
        if len(dimensions) != width or width == 0:
            raise ValueError(f"line {number} has {len(dimensions)} dimensions, not {width}")
        if not np.isfinite(values).all():
            where, dimension = np.argwhere(~np.isfinite(values))[0]
            raise ValueError(
                f"line {number} holds NaN or infinity in dimension {dimension} at frame {where}"
            )
        if not speaker or (labels and speaker.lower() not in labels):
            raise ValueError(f"line {number} has the label {speaker!r}, which is not a speaker")
        series.append(values)
        speakers.append(speaker)
    if not series:
        raise ValueError("no series follow a line @data")
    return series, speakers


def load_scene15(*, data_home=None):
    """Load the 15-Scene images.

    Parameters
    ----------
    data_home : str or path-like, default=None
        The folder that contains ``scene15/train/CLASS/*.jpg``, one folder per class; by default
        the one that the environment variable SKFISHER_DATA names.

    Returns
    -------
    scenes : Bunch
        With the fields

        - ``images``: list of uint8 arrays of shape (height, width), grey, of different sizes. Sizes
          alone reveal groups of classes: use no feature that depends on them;
        - ``target``: ndarray of shape (n_images,), the classes;
        - ``target_names``: the names of the classes, as strings;
        - ``filenames``: list of str;
        - ``DESCR``: a description.

    Raises
    ------
    ImportError
        If OpenCV is not installed.
    FileNotFoundError
        If there are no images; the message says where to put them.
    ValueError
        If a file is not an image, or is cut short.

    See Also
    --------
    skfisher.descriptors.dense_sift : Makes bags of the images.
    """
    paths = _find(
        "scene15/train/*/*.jpg",
        data_home,
        "the images of 15-Scene (Lazebnik, Schmid and Ponce 2006), one folder per class, such as "
        "scene15/train/Bedroom/image_0001.jpg",
    )
    cv2 = import_opencv("load_scene15")
    images = []
    for path in paths:
        with naming(path):
            images.append(decode_image(path.read_bytes(), cv2.IMREAD_GRAYSCALE))
    target_names, target = np.unique([path.parent.name for path in paths], return_inverse=True)
    return Bunch(
        images=images,
        target=target,
        target_names=target_names,
        filenames=[str(path) for path in paths],
        DESCR="15-Scene (Lazebnik, Schmid and Ponce 2006), grey images, 15 classes",
    )


def _find(pattern, data_home, what):
    """Return the files that match, in order, or say `what` belongs there."""
    home = os.environ.get("SKFISHER_DATA") if data_home is None else data_home
    paths = [] if home is None else sorted(Path(home).expanduser().glob(pattern))
    if not paths:
        found = "SKFISHER_DATA is not set" if home is None else f"{home} holds no {pattern}"
        raise FileNotFoundError(
            f"{found}: get {what}, put it into a folder as {pattern}, and name the folder by "
            "data_home or by the environment variable SKFISHER_DATA."
        )
    return paths
