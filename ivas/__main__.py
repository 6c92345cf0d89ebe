"""`python -m ivas` is the same as `ivas`."""

from ivas.cli import main

if __name__ == "__main__":
    main()
