"""Weights in PyTorch's names and layouts: read, checked, mapped to ours and back."""
