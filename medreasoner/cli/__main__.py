"""python -m medreasoner.cli."""

from medreasoner.cli import main

if __name__ == "__main__":
    main()
