"""Language models of any architecture: text in, text out."""
