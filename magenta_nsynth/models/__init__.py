"""The Keras models.

`wavenet` has `WaveNetEncoder`, `WaveNetDecoder` and `WaveNetAutoencoder`; import it
before `keras.models.load_model` reads a .keras file of theirs.
"""
