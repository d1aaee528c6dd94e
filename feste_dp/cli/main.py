"""The command feste-dp: its subcommands, and how an error becomes one line and an exit status.

0 done, 1 the run failed, 2 bad usage or config, 130 or 143 stopped by a signal.
"""

import os
import sys

import click

from feste_dp import __version__
from feste_dp.cli.checkpoint import checkpoint
from feste_dp.cli.prepare import prepare
from feste_dp.cli.read_run import evaluate, generate
from feste_dp.cli.train import launch, resume
from feste_dp.errors import RunError, UsageError
from feste_dp.train.signals import Interrupted


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="feste-dp")
def cli() -> None:
    """Train GPT-2-class language models on CPUs, data-parallel over worker processes.

    The worker count never changes the result: not one bit of it.
    """


for command in (launch, resume, generate, evaluate, prepare, checkpoint):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit."""
    try:
        status = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        status = 130
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except UsageError as error:
        click.echo(f"error: {error}", err=True)
        status = 2
    except RunError as error:
        click.echo(f"error: {error}", err=True)
        status = 1
    except (Interrupted, KeyboardInterrupt) as error:
        click.echo("stopped", err=True)
        status = error.exit_status if isinstance(error, Interrupted) else 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    sys.exit(status)
