"""Closed-form predictions of the literature on model collapse, as pure functions independent of the simulator.

There are two toy models: the empirical distribution of a sample (a unigram model, or one context of a language
model) and the Gaussian fitted to a sample. In both, diversity obeys the same recursions, so ``h0`` and ``h``
are either the Gini-Simpson diversity H = 1 - sum p_i^2 or the maximum likelihood variance per coordinate.

Arguments have the same meaning everywhere. ``t`` holds generations, whole numbers of any shape: 0 is the true
distribution, 1 the first model fitted to human data (the papers' p^(1)); the result has the shape of ``t``. ``n`` is
the number of samples per generation, ``n_real`` and ``n_synthetic`` count samples, and ``p`` (types,) is a distribution
that sums to 1. Diversities, distances and probabilities have no unit; a variance is in squared units of the data.
An argument outside its domain raises :class:`~ecosystem.errors.DataError`.

A function of ``t`` that a scenario can name is a law (:mod:`ecosystem.theory.laws`); its docstring gives its source.
"Derived for this project" marks a result that no paper states in this form. "Unread" after a source means that the
formula was taken from a summary of the paper or from memory, not from its text. ``tests/test_theory.py`` checks every
function against independent simulations or exact Markov chains.
"""
