"""NSynth's notes: their schema, reading them through tf.data, and making them."""
