"""What runs inside the training job. Free of Dagster, of Spark and of MLflow."""
