"""TFRecords: their framing and index, reading them through tf.data, writing them."""
