"""Dead letters: the message, its publisher, and what operators do with the queue."""
