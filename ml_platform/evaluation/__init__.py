"""How good a model is: metrics, the baseline it must justify itself against, and plots. Free of Dagster."""
