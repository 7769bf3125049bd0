"""`python -m ml_platform.cli`: the same as `ml-platform`, also where the folder has a space in its name."""

from ml_platform.cli.main import main

if __name__ == "__main__":
    main()
