"""RabbitMQ: connection, parser of deliveries, topology, subscription, confirms.

The package that knows pika.
"""
