"""How good the data gate is at its job: what it lets through, what it stops, and how fast."""
