"""Random augmentation of training batches inside tf.data."""
