"""Kernels for the CPU, in C, and their launchers: what `ops/` computes with arrays, faster."""
