"""The Keras models.

`wavenet` contains `WaveNetEncoder`, `WaveNetDecoder` and `WaveNetAutoencoder`, and
`spectral` the baseline's. Import the module before `keras.models.load_model` reads a
.keras file of one of its models.
"""
