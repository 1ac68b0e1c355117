"""``python -m kvorum`` is ``kvorum``."""

from kvorum.cli.main import main

if __name__ == "__main__":
    main()
