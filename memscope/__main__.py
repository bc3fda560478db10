"""``python -m memscope``: the command line."""

from memscope.cli.main import main

if __name__ == "__main__":
    main()
