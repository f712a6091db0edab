"""TFRecords: framing, index, reading through tf.data, writing."""
