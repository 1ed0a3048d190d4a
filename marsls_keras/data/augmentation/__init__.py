"""Random changes of training batches inside tf.data."""
