"""What the package costs, measured: ``make bench``."""
