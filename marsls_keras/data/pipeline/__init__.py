"""tf.data pipelines: sampling of training windows, and batches for training and evaluation."""
