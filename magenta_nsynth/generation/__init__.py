"""Generates sound: the stepwise decoder, and the draws and blocks around it."""
