"""What a run costs when little or nothing has changed, beside what others need for the same. See `__main__`."""
