"""Downloading files and unpacking archives, neither of which is trusted."""
