"""Where a model came from, down to the bytes that landed; and the proof: building it once more."""
