"""The command clep-dg pin, and what clep-dg status --refresh says."""

import argparse

from clepdg.errors import ConfigError
from clepdg_flows.cli.parser import Commands, add_command
from clepdg_tasks.engine import last_arguments, pinned
from clepdg_tasks.engine.run_history import Arguments, as_command, as_text
from clepdg_tasks.host.settings import Settings, load_settings


def add_pin_command(commands: Commands) -> None:
    """Add the command."""
    what = "choose what run --refresh and the weekly deployment run: a run of this machine that finished"
    pin = add_command(commands, "pin", pin_command, what, "clep-dg pin")
    pin.add_argument("--run", metavar="RUN", help="name of a finished run (default: the last whole one)")
    pin.add_argument("--remove", action="store_true", help="pin nothing: a refresh then runs nothing")


def pin_command(options: argparse.Namespace) -> None:
    """Pin a finished run or remove the pin; print what a refresh runs."""
    settings = load_settings()
    if options.remove:
        print("The pin is removed: a refresh runs nothing." if pinned.unpin(settings) else "Nothing was pinned.")
        return
    pinned.pin(settings, options.run)
    for line in refresh_lines(settings):
        print(line)


def refresh_lines(settings: Settings) -> list[str]:
    """Return what a refresh runs, why, and when it is scheduled.

    Raises:
        ConfigError: the pin can't be read, or names what is no longer there.
    """
    pin = pinned.pinned(settings)
    if pin is None:
        last = next((each for each in pinned.finished_runs(settings) if each.whole), None)
        lines = ["A refresh runs nothing: no run is pinned."]
        lines += [f"clep-dg pin would pin run {last.run}: {as_command(last.arguments)}"] if last else []
    else:
        from clepdg_flows.run.refresh import kept_defaults

        lines = [f"A refresh repeats run {pin.run}, pinned {pin.pinned}:", f"  {as_command(pin.arguments)}"]
        lines += [f"  {name}={as_text(value)}, as it was then" for name, value in kept_defaults(pin).items()]
    return lines + _when(settings)


def refresh_line(settings: Settings, arguments: Arguments) -> str | None:
    """Return at a run's end what a refresh will run.

    None for a part of a run, or where nothing is pinned.
    """
    if not last_arguments.is_whole(arguments):
        return None
    try:
        pin = pinned.pinned(settings)
    except ConfigError as error:
        return f"refresh  {error.what} {error.do}"
    return f"refresh  repeats run {pin.run} (clep-dg status --refresh)" if pin else None


def _when(settings: Settings) -> list[str]:
    """Return when Prefect's server runs a refresh."""
    from clepdg_tasks.admin.prefect_deployments import schedules_of

    return schedules_of(settings, "refresh")
