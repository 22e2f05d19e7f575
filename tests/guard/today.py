"""The counts of today: what a message, or a batch, costs on each stretch of the road.

Made by `PYTHONPATH=tests .venv/bin/python -m guard.show --write`; see README.md beside it.
"""

from guard.counting import Counts

PYTHON = (3, 11)
"""Whose bytecode was counted; that of another differs by more than the margin."""
MARGIN = 0.10
"""So much more than today may be: no noise, but room for a change that is worth it."""
SLACK = 0.05
"""And so much beside: a few calls a batch are next to nothing a message."""

COUNTS = {
    "scan": Counts(instructions=131.38, calls=0.01, c_calls=6.01),  # a message
    "read": Counts(instructions=134.02, calls=0.06, c_calls=6.1),  # a message
    "worker": Counts(instructions=414.39, calls=21.27, c_calls=13.94),  # a batch
    "settlement": Counts(instructions=151.91, calls=4.18, c_calls=7.45),  # a batch
    "file raw": Counts(instructions=1.3, calls=0.06, c_calls=0.04),  # a message
    "file json": Counts(instructions=65.51, calls=2.1, c_calls=1.11),  # a message
    "metrics": Counts(instructions=52.73, calls=1.4, c_calls=2.8),  # a message
    "where": Counts(instructions=52.65, calls=1.45, c_calls=1.4),  # a message
    "properties": Counts(instructions=105.0, calls=1.0, c_calls=6.0),  # a message
    "json": Counts(instructions=28.0, calls=1.0, c_calls=1.0),  # a message
}
