"""Descriptors: extracted from images and sound, and transformed."""

from .sift import dense_sift
from .sound import deltas, mfcc

__all__ = ["deltas", "dense_sift", "mfcc"]
