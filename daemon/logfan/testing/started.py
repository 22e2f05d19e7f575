"""A context manager that starts something, and leaves nothing of it however it ends."""

from typing import Self


class Started:
    """Subclass it with `start` and `close`."""

    def start(self) -> None:
        """Start it, and wait until it works."""
        raise NotImplementedError

    def close(self) -> None:
        """End it, at whatever stage it is."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # Ctrl-C, too
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
