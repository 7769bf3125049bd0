"""The same checks as others run them: scripts for an environment of its own, `python FILE PARQUET ROUNDS`."""
