"""Pictures: rainbowgrams, curves of embeddings, figures of many, pages that play."""
