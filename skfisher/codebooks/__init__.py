"""Mixtures of Gaussians and how they are fitted."""
