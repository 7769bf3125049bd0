"""Code versions, data versions and fingerprints; and from them, what is stale and why."""
