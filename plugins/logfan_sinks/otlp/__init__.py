"""The sink `otlp`: OpenTelemetry's protocol for logs, over HTTP."""

from logfan_sinks.otlp.sink import OtlpSink, register_sinks

__all__ = ["OtlpSink", "register_sinks"]
