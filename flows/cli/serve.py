"""The command clep-dg serve: a registered classifier as a web service on this machine, with limits."""

import argparse
import contextlib
import math
import socket

from clepdg.errors import ConfigError
from clepdg_flows.cli.parser import Commands, add_command, number
from clepdg_flows.cli.registry import registry_settings

HOST = "127.0.0.1"


def add_serve_command(commands: Commands) -> None:
    """Add the command."""
    what = "answer requests with a registered classifier, on 127.0.0.1"
    serve = add_command(commands, "serve", serve_command, what, "clep-dg serve --preset demo --port 5001")
    serve.add_argument("--preset", default="open", help="demo: the classifier of the demo (default: open)")
    serve.add_argument("--version", help="number or alias of a registered version (default: champion)")
    port = number(int, 0, 65535, "0 to 65535; 0: a free one")
    serve.add_argument("--port", type=port, default=5001, help="default: 5001")
    limits = (
        ("megabytes", 64.0, "of a request", number(float, 0.001, 100_000, "megabytes, 0.001 to 100000")),
        ("files", 100, "of a request", number(int, 1, math.inf, "a whole number, 1 or more")),
        ("seconds", 60.0, "of a file", number(float, 0.2, 3600, "seconds, 0.2 to 3600")),
    )
    for name, default, of, kind in limits:
        text = f"most {name} {of} (default: {default:g})"
        serve.add_argument(f"--max-{name}", type=kind, default=default, metavar="N", help=text)


def serve_command(options: argparse.Namespace) -> None:
    """Answer requests until Ctrl-C."""
    settings = registry_settings(options.preset)
    with _bound(options.port) as listening:
        import uvicorn

        from clepdg_tasks.host.scoring_app import make_app
        from clepdg_tasks.tracking.model_registry import CHAMPION, find_version, load_classifier, model_name

        version = str(find_version(settings, options.preset, options.version or CHAMPION).version)
        model = load_classifier(settings, options.preset, version, audio_only=True)
        name = f"{model_name('classifier', options.preset)}/{version}"
        app = make_app(model, int(options.max_megabytes * 1e6), options.max_files, options.max_seconds)
        print(f"{name} answers at http://{HOST}:{listening.getsockname()[1]}/invocations; Ctrl-C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def _bound(port: int) -> socket.socket:
    """Return a socket that listens on a port of this machine."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise ConfigError("This port can't be used.", got=error, where=f"--port {port}", do="give another") from error
    return listening
