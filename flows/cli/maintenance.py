"""The commands clep-dg verify and clep-dg gc."""

import argparse
import sys

from clepdg.errors import counted
from clepdg_flows.cli.parser import Commands, add_command, add_json_option, print_json
from clepdg_flows.cli.terminal import bar
from clepdg_tasks.admin import maintenance
from clepdg_tasks.host.preflight import check_tracking
from clepdg_tasks.host.settings import load_settings


def add_maintenance_commands(commands: Commands) -> None:
    """Add the two commands."""
    what = "read every output of the store; damaged ones are computed again"
    verify = add_command(commands, "verify", verify_command, what, "clep-dg verify --dry-run")
    verify.add_argument("--dry-run", action="store_true", help="only say what is damaged")
    add_json_option(verify)
    what = "remove outputs that no recent run, registered alias or current work uses"
    gc = add_command(commands, "gc", gc_command, what, "clep-dg gc --dry-run")
    gc.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    add_json_option(gc)


def verify_command(options: argparse.Namespace) -> None:
    """Verify the store, and print damaged outputs."""
    store = load_settings().open_store()
    with bar("source", "verify") as progress:  # in bytes
        count, damaged = maintenance.verify(store, dry_run=options.dry_run, progress=progress)
    if options.json:
        found = [{"stage": item.stage, "key": item.key, "fault": fault} for item, fault in damaged]
        print_json({"store": store.url, "outputs": count, "damaged": found, "withdrawn": not options.dry_run})
        sys.exit(1 if damaged else 0)
    for item, fault in damaged:
        print(_printable(f"{item.stage:17s} {item.key[:16]}  {fault}"))
    print(f"{counted(count, 'output')} in {store.url}, {len(damaged)} damaged", end="")
    if damaged:
        them, were = ("it", "it was") if len(damaged) == 1 else ("them", "they were")
        print("." if options.dry_run else f"; {were} taken back: the next run computes {them} again.")
        sys.exit(1)
    print(".")


def gc_command(options: argparse.Namespace) -> None:
    """List unused outputs, then remove them."""
    settings = load_settings()
    check_tracking(settings)
    store = settings.open_store()
    found = maintenance.garbage(store, settings)
    if options.json:
        gone = [] if options.dry_run else maintenance.remove(store, found)
        shown = [{"stage": item.stage, "key": item.key, "kind": item.kind, "bytes": item.bytes} for item in found.items]
        facts = {"store": store.url, "unused": shown, "removed": len(gone)}
        print_json(facts | {"kept": {"items": found.kept, "bytes": found.kept_bytes}})
        return
    for item in found.items:
        print(_printable(maintenance.describe(store, item)))
    kept = f"{found.kept} ({found.kept_bytes / 1e9:.2f} GB) {'is' if found.kept == 1 else 'are'} kept"
    if options.dry_run or not found.items:
        items = counted(len(found.items), "item")
        print(f"{items} ({found.bytes / 1e9:.2f} GB) of {store.url} can be removed, {kept}.")
        return
    removed = maintenance.remove(store, found)
    size = sum(item.bytes for item in removed) / 1e9
    were = "was" if len(removed) == 1 else "were"
    items = counted(len(found.items), "item")
    print(f"{len(removed)} of {items} ({size:.2f} GB) {were} removed from {store.url}, {kept}.")


def _printable(text: str) -> str:
    """Return a text of the store without what would steer a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
