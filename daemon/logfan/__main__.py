"""`python -m logfan` is the command `logfan`."""

from logfan.cli import main

if __name__ == "__main__":
    main()
