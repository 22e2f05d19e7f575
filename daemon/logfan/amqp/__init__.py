"""RabbitMQ: connection, parser of deliveries, topology, subscription, confirms.

The package that knows pika; beside it only `pipeline/dispatcher.py` and `dead_letters/publisher.py`
do.
"""
