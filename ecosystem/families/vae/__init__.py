"""Variational autoencoders of vectors and images."""
