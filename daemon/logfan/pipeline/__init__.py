"""The path of a message: consumer, batches, in-flight tracker, flow control, sink workers."""
