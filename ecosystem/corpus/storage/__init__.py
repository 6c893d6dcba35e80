"""Storage of the corpus: tables, indexes and arrays that may be larger than memory."""
