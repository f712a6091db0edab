"""Exporting and reading embeddings: clips of any length through the encoder."""
