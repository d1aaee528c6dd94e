"""`python -m feste_dp` is the command feste-dp."""

from feste_dp.cli.main import main

if __name__ == "__main__":
    main()
