"""Pixel-BERT in PyTorch: the files of an export, which need torch and transformers alone."""
