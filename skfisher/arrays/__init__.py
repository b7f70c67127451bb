"""Arrays of any library: NumPy, CuPy, tensors, and what has a rectangular form."""
