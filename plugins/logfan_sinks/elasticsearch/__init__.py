"""The sink `elasticsearch`: documents by the bulk API."""

from logfan_sinks.elasticsearch.sink import ElasticsearchSink, register_sinks

__all__ = ["ElasticsearchSink", "register_sinks"]
