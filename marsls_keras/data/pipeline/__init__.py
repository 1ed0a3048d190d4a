"""tf.data pipelines: which windows training sees, and batches of them."""
