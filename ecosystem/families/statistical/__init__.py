"""Models whose parameters, and whose laws under retraining, are known in closed form."""
