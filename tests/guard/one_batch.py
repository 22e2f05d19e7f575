"""A process that writes batches with the sink `file`, for a tracer: FORMAT PATH.

Each batch is written and made durable between two calls that find nothing at `MARK`.
"""

import os
import sys

from guard.messages import batches
from logfan_sinks.file import FileSink

MARK = "/guard-mark"
RECORDS = 1_000


def main(form: str, path: str) -> None:
    """Write them."""
    sink = FileSink(FileSink.Config.model_validate({"path": path, "format": form}), name="a")
    parts = batches(RECORDS)
    sink.open()
    for records in parts:
        os.access(MARK, os.F_OK)
        sink.write(records)
        sink.flush()
        os.access(MARK, os.F_OK)
    sink.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
