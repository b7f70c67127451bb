"""Bags of descriptors, how they are stored and what their features are called."""

from .bags import Bags

__all__ = ["Bags"]
