"""MLflow's scoring app with a classifier of the store, and limits."""

from collections.abc import Awaitable, Callable, MutableMapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clepdg.method.emotion_classifier import EmotionClassifier

DRAINED = 4  # times the limit that is read of a request without a length: clients want to send it all
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


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
