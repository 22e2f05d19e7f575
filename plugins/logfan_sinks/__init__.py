"""The sinks that come with logfan: one file each, written like anyone's plugin."""
