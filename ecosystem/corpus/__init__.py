"""The documents, the web they are published on, and the sources that people's documents are drawn from."""
