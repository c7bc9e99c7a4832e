"""The command clep-dg serve: a registered classifier as a web service on this machine, with limits."""

import argparse
import contextlib
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from clepdg.errors import ConfigError
from clepdg_flows.cli.parser import Commands, add_command
from clepdg_flows.cli.registry import registry_settings

if TYPE_CHECKING:
    from clepdg.method.emotion_classifier import EmotionClassifier

HOST = "127.0.0.1"
DRAINED = (
    4  # times the limit that is read of a request without a length: some clients see no answer before they sent it
)
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def add_serve_command(commands: Commands) -> None:
    """Add the command."""
    what = "answer requests with a registered classifier, on 127.0.0.1"
    serve = add_command(commands, "serve", serve_command, what, "clep-dg serve --preset demo --port 5001")
    serve.add_argument("--preset", default="open", help="demo: the classifier of the demo (default: open)")
    serve.add_argument("--version", help="number or alias of a registered version (default: champion)")
    serve.add_argument("--port", type=int, default=5001, help="default: 5001")
    limits = (("megabytes", 64.0, "of a request"), ("files", 100, "of a request"), ("seconds", 60.0, "of a file"))
    for name, default, of in limits:
        text = f"most {name} {of} (default: {default:g})"
        serve.add_argument(f"--max-{name}", type=type(default), default=default, metavar="N", help=text)


def serve_command(options: argparse.Namespace) -> None:
    """Answer requests until Ctrl-C."""
    if options.max_megabytes <= 0 or options.max_files < 1 or not 0.2 <= options.max_seconds <= 3600:
        got = f"{options.max_megabytes:g} MB, {options.max_files} files, {options.max_seconds:g} s"
        raise ConfigError("These limits admit nothing, or too much.", got=got, expected="seconds: 0.2 to 3600")
    settings = registry_settings(options.preset)
    with _bound(options.port) as listening:
        import uvicorn

        from clepdg_tasks.tracking.model_registry import CHAMPION, find_version, load_classifier, model_name

        version = str(find_version(settings, options.preset, options.version or CHAMPION).version)
        model = load_classifier(settings, options.preset, version, audio_only=True)
        name = f"{model_name('classifier', options.preset)}/{version}"
        app = make_app(model, int(options.max_megabytes * 1e6), options.max_files, options.max_seconds)
        print(f"{name} answers at http://{HOST}:{listening.getsockname()[1]}/invocations; Ctrl-C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def make_app(model: "EmotionClassifier", most_bytes: int, most_files: int, most_seconds: float) -> Any:
    """Return MLflow's scoring app with a classifier and limits.

    Args:
        most_bytes: of a request.
        most_files: of a request.
        most_seconds: of a file.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
    from mlflow.pyfunc import scoring_server

    from clepdg_tasks.tracking.pyfunc_model import AudioModel

    class Refusal(MlflowException):  # type: ignore[misc]
        """An error whose message stays: MLflow puts the whole request before it."""

        message = property(lambda self: self.args[0], lambda self, text: None)

    served = AudioModel()
    served.clap, served.head, served.max_seconds = model.clap, model.head, most_seconds

    def predict(data: Any) -> Any:
        if len(data) > most_files:
            what = f"Too many files in a request: {len(data)}, at most {most_files}"
            raise Refusal(what, INVALID_PARAMETER_VALUE)
        try:
            return served.predict(None, data)  # type: ignore[no-untyped-call]
        except MlflowException as error:
            raise Refusal(error.message, INVALID_PARAMETER_VALUE) from error

    without_schema = SimpleNamespace(get_input_schema=lambda: None)
    app = scoring_server.init(SimpleNamespace(predict=predict, metadata=without_schema))
    app.add_middleware(BodyLimit, most_bytes=most_bytes)
    return app


class BodyLimit:
    """ASGI middleware: refuses a large request before it is in memory."""

    def __init__(self, app: Any, most_bytes: int) -> None:
        self.app, self.most_bytes = app, most_bytes

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Read a request's body, and hand it on if it is small enough."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        promised = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = promised.isdigit() and int(promised) > self.most_bytes
        size, body, more = 0, bytearray(), not too_large
        while more and size <= DRAINED * self.most_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            too_large = size > self.most_bytes
            if too_large:
                body.clear()
            else:
                body += message.get("body", b"")
            more = message.get("more_body", False)
        if too_large:
            await _refuse(send, f"The request is too large: at most {self.most_bytes / 1e6:g} MB")
            return
        read: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> Message:
            return read.pop() if read else await receive()

        await self.app(scope, again, send)


async def _refuse(send: Send, what: str) -> None:
    """Answer with status 413 and a message in MLflow's form."""
    from starlette.responses import JSONResponse

    answer = JSONResponse({"error_code": "INVALID_PARAMETER_VALUE", "message": what}, status_code=413)
    await send(
        {"type": "http.response.start", "status": 413, "headers": [*answer.raw_headers, (b"connection", b"close")]}
    )
    await send({"type": "http.response.body", "body": answer.body})


def _bound(port: int) -> socket.socket:
    """Return a socket that listens on a port of this machine."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError("This port can't be used.", got=error, where=f"--port {port}", do="give another") from error
    return listening
