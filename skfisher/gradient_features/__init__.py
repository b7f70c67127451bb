"""Gradients of a trained network as features: kernel and explicit map."""
