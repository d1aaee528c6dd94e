"""The small trained run of the command line's tests, for recipes that run the real program."""

from tests.cli.conftest import place  # noqa: F401
