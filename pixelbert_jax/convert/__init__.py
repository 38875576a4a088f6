"""Conversion of weights between PyTorch's names and layouts and those of this package."""
