"""What a command prints while kernels are compiled for it."""

import os

import click

from feste_dp.runtime.warmup import COMPILING, cache_warnings, compile_kernels


def compile_with_notice() -> None:
    """Compile the kernels where that has not been done; says so beside the output, not in it."""
    announced = False

    def on_wait(seconds: float) -> None:
        nonlocal announced
        if not announced:
            click.echo(COMPILING, err=True)
            announced = True

    for line in cache_warnings(os.environ):
        click.echo(f"warning: {line}", err=True)
    compile_kernels(os.environ, on_wait)
