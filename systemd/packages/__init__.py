"""What `make dist` builds beside wheel and sdist. Nothing of it is in the wheel."""
