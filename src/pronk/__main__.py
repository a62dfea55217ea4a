"""`python -m pronk`."""

from pronk.cli import main

if __name__ == "__main__":
    main()
