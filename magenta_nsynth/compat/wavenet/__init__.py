"""The original's module `fastgen`: encoding and generating."""
