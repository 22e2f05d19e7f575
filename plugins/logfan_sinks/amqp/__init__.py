"""The sink `amqp`: records to an exchange of another RabbitMQ."""

from logfan_sinks.amqp.sink import AmqpSink, register_sinks

__all__ = ["AmqpSink", "register_sinks"]
