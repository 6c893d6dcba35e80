"""Families of generative models: the values that describe them and the cohorts that train and sample them."""
