"""The chain, one file a stage."""
