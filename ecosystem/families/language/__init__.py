"""Language models: text in, text out, whatever the architecture."""
