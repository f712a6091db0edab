"""Pictures: rainbowgrams, curves of embeddings, figures, and web pages that play them.

Only `rainbowgrams` needs TensorFlow. Processes that draw do without it.
"""
