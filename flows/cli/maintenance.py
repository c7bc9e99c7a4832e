"""clep-dg verify and clep-dg gc: what they print."""

import argparse
import sys

from flows.cli.terminal import bar
from tasks.admin import maintenance
from tasks.host.preflight import check_tracking
from tasks.host.settings import load_settings


def add_care_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the two commands."""
    verify = commands.add_parser("verify", help="read every output of the store; damaged ones are computed again")
    verify.set_defaults(command=verify_command)
    verify.add_argument("--dry-run", action="store_true", help="only say what is damaged")
    gc = commands.add_parser("gc", help="remove what no recent run, registered alias or work under way reaches")
    gc.set_defaults(command=gc_command)
    gc.add_argument("--dry-run", action="store_true", help="only list what would be removed")


def verify_command(options: argparse.Namespace) -> None:
    """Verify the store, and say what is damaged."""
    store = load_settings().open_store()
    with bar("source", "verify") as progress:  # in bytes
        count, damaged = maintenance.verify(store, dry_run=options.dry_run, progress=progress)
    for item, fault in damaged:
        print(f"{item.stage:17s} {item.key[:16]}  {fault}")
    print(f"{count} outputs in {store.url}, {len(damaged)} damaged", end="")
    if damaged:
        print("." if options.dry_run else "; they were taken back: the next run computes them again.")
        sys.exit(1)
    print(".")


def gc_command(options: argparse.Namespace) -> None:
    """List what nothing reaches, then remove it."""
    settings = load_settings()
    check_tracking(settings)
    store = settings.open_store()
    found = maintenance.garbage(store, settings)
    for item in found.items:
        print(maintenance.describe(store, item))
    kept = f"{found.kept} ({found.kept_bytes / 1e9:.2f} GB) stay"
    if options.dry_run or not found.items:
        print(f"{len(found.items)} items ({found.bytes / 1e9:.2f} GB) of {store.url} can go, {kept}.")
        return
    removed = maintenance.remove(store, found.items)
    print(f"{removed} of {len(found.items)} items ({found.bytes / 1e9:.2f} GB) were removed from {store.url}, {kept}.")
