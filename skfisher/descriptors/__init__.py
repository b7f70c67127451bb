"""Descriptors: extracted from images and sound, and transformed."""

from .extraction import deltas, dense_sift, mfcc

__all__ = ["deltas", "dense_sift", "mfcc"]
