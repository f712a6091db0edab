"""Generating sound: the stepwise decoder, its draws and its blocks."""
