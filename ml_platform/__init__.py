"""An asset-based platform for training models, on Dagster. Start with `pipeline.py`: what a team writes."""
