"""``python -m studies``: a command for each question."""

from studies.cli import main

if __name__ == "__main__":
    main()
