"""The sink `file`: records as lines in files, durable before the acknowledgement."""

from logfan_sinks.file.sink import FileSink, register_sinks

__all__ = ["FileSink", "register_sinks"]
