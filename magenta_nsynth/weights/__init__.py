"""TF1 checkpoints: finding, reading, checking, loading, writing."""
