"""The same small pipelines as others run them. Each file is a script that is started in a folder of its own."""
