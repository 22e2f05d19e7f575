"""The sink `metrics`: counters, gauges and histograms from the fields of records."""

from logfan_sinks.metrics.sink import MetricsSink, register_sinks

__all__ = ["MetricsSink", "register_sinks"]
