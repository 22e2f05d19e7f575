"""Sinks that speak HTTP: what they share, and the sink `http`."""

from logfan_sinks.http.sink import HttpSink, register_sinks

__all__ = ["HttpSink", "register_sinks"]
