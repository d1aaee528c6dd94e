"""All subcommands under one name, and how an error becomes one line and an exit status."""

import errno
import signal
import sys
from typing import Any

import click

from feste_dp import __version__
from feste_dp.cli.arguments import with_flags
from feste_dp.cli.bench import bench
from feste_dp.cli.checkpoint import checkpoint
from feste_dp.cli.config import config
from feste_dp.cli.configs import configs
from feste_dp.cli.doctor import doctor
from feste_dp.cli.exchange import export, import_command
from feste_dp.cli.generate import generate
from feste_dp.cli.pages import dashboard, report, watch
from feste_dp.cli.plan import plan
from feste_dp.cli.prepare import prepare
from feste_dp.cli.read_run import evaluate
from feste_dp.cli.replay import replay_command
from feste_dp.cli.runs import runs
from feste_dp.cli.scale import scale
from feste_dp.cli.train import launch, resume
from feste_dp.cli.verify import verify_command
from feste_dp.cli.workers import workers
from feste_dp.errors import RunError, UsageError
from feste_dp.interruption import Interrupted, end_on_the_spot, raise_from_here
from feste_dp.output import Output
from feste_dp.run.screen import printable
from feste_dp.train.signals import described

DONE, FAILED, BAD_USAGE, BROKEN_PIPE = 0, 1, 2, 141
_USUAL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Commands(click.Group):
    """Lists its commands in the order in which people meet them, and leaves a closed pipe to `run`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would end with status 1
            raise click.exceptions.Exit(BROKEN_PIPE) from None


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="feste-dp")
def cli() -> None:
    """Train GPT-2-class language models on CPUs, data-parallel over worker processes.

    The worker count never changes the result: not one bit of it.

    \b
    Examples:
      feste-dp launch --config tiny --workers 2
      feste-dp generate data/runs/NAME --prompt 'HAMLET.'

    `feste-dp COMMAND --help` says more of each command.
    """


COMMANDS = (
    *(launch, resume, workers, generate, evaluate, prepare),
    *(export, import_command, checkpoint, replay_command),
    *(configs, config, plan, bench, scale, runs, report, dashboard, watch, doctor, verify_command),
)
for command in COMMANDS:
    cli.add_command(command)


def run() -> int:
    """Run the command line in sys.argv; prints what went wrong and returns the exit status."""
    try:
        raise_from_here()
        status = _run()
        end_on_the_spot()  # inside: one that came before is caught below
        return status
    except Interrupted as error:
        return _stopped(error.signum)
    except (click.Abort, KeyboardInterrupt):
        return _stopped(signal.SIGINT)


def _run() -> int:
    try:
        status: int = cli.main(prog_name="feste-dp", standalone_mode=False)
        return status
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return BAD_USAGE
    except click.ClickException as error:
        return _fail(_one_sentence(error), BAD_USAGE)
    except UsageError as error:
        return _fail(with_flags(error), BAD_USAGE)
    except RunError as error:
        return _fail(str(error), FAILED)
    except MemoryError:
        return _fail("out of memory: set the model, train.micro_batch or run.workers smaller", FAILED)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG):
            raise
        where = f": {error.filename}" if error.filename is not None else ""
        return _fail(f"cannot write{where}: {error.strerror}", FAILED)


def _stopped(signum: int) -> int:
    by = "" if signum in _USUAL else f" by {described(signum)}"
    _say(f"stopped{by}")
    return 128 + signum


def _fail(message: str, status: int) -> int:
    line = printable(message).replace("\n", "\\n").replace("\t", "\\t")
    _say(f"error: {line}")
    return status


def _say(line: str) -> None:
    """The last line on standard error; an end does not wait for who does not read it."""
    error = Output(sys.stderr)
    error.urgent = True
    error.line(line)
    error.drain()


def _one_sentence(error: click.ClickException) -> str:
    """What click says of a bad command line in one line, and where to look."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message}; see {context.command_path} --help" if context is not None else message
