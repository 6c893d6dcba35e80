"""The choices of writers, as functions of settings and noise: strategies, and mixtures of human and AI documents."""
