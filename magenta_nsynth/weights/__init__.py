"""TF1 checkpoints: find, read, check, load, write and download them."""
