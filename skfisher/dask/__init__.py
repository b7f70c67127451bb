"""Fits and encodings of shards by the workers of a Dask cluster."""

from .fitting import fit
from .kernel import kernel_blocks
from .results import transform
from .workers import LostWorkersError

__all__ = ["LostWorkersError", "fit", "kernel_blocks", "transform"]
