"""`python -m feste_dp` is the command feste-dp."""

from feste_dp.import_path import leave_current_folder

if __name__ == "__main__":
    leave_current_folder()
    from feste_dp.cli.main import main  # here: `python -m` puts the current folder first

    main()
