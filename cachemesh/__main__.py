"""`python -m cachemesh` is the `cachemesh` command."""

from cachemesh.cli import main

if __name__ == "__main__":
    main()
