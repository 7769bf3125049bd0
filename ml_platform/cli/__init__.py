"""The command line, `ml-platform`: one module a command, `main` puts them together."""
