"""feste-dp doctor."""

import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from feste_dp import __version__
from feste_dp.cli.arguments import OVERRIDES, WORKERS, ConfigType, as_overrides
from feste_dp.config.loading import load_config
from feste_dp.json_text import json_text
from feste_dp.machine.variables import environment_at_start
from feste_dp.plan.doctor import MEND, NOTE, Finding, Patient, examine
from feste_dp.run.screen import printable
from feste_dp.wording import counted

WELL, ILL = 0, 1
_COLORS = {MEND: "red", NOTE: "yellow"}


@click.command()
@click.option(
    "--config",
    "config_path",
    default="tiny",
    show_default=True,
    type=ConfigType(),
    metavar="NAME|FILE",
    help="The config whose needs are looked at: a name or a YAML file.",
)
@click.option("--workers", type=WORKERS, metavar="N", help="Worker processes, as launch takes them.")
@OVERRIDES
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(config_path: Path, workers: int | None, overrides: tuple[str, ...], as_json: bool) -> int:
    """Say what of this machine and environment is fine, and what to mend before a run.

    Versions, CPU, memory, limits, places to write to, cache, variables, clocks. Starts nothing; what is
    printed can go into a bug report: it has no name of machine or user. Exit status 1 where something must
    be mended.

    \b
    Examples:
      feste-dp doctor
      feste-dp doctor --config gpt2_124m --workers 16
    """
    config = load_config(config_path, as_overrides(overrides, workers))
    patient = Patient(config, environment_at_start(os.environ))
    findings = examine(patient)
    verdicts = Counter(finding.verdict for finding in findings)
    if as_json:
        click.echo(json_text({"version": __version__, "findings": list(map(asdict, findings))}, indent=2))
    else:
        needs = f"a run of {config.run.name} with {counted(patient.workers, 'worker')}"
        click.echo(printable(f"feste-dp {__version__}, looked at for {needs}"))
        for finding in findings:
            click.echo(_line(finding))
        notes = counted(verdicts[NOTE], "note")
        click.echo(f"{verdicts[MEND]} to mend, {notes}" if verdicts[MEND] else f"nothing to mend, {notes}")
    return ILL if verdicts[MEND] else WELL


def _line(finding: Finding) -> str:
    verdict = click.style(finding.verdict, fg=_COLORS.get(finding.verdict))
    text = printable(finding.text).replace("\n", "\\n").replace("\t", "\\t")
    return f"{verdict}  {finding.about:<13}  {text}"
