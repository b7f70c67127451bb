"""The bridge to PyTorch."""
