"""`echox serve`: a model behind the protocol that everyone's client speaks, and a page to talk to it.

Parses options and starts; the server itself stands in `echox/serve/`.
"""

import os
from typing import Annotated

import typer

from echox.commands.options import Device, Dtype, Llm, positive
from echox.errors import require


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="mini (default), a folder, a hub name, or fake; may be repeated."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen at.")] = 8000,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, each with its own models.")] = 1,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="API key to let in; also ECHOX_API_KEYS, by commas.")
    ] = None,
    origin: Annotated[
        list[str] | None, typer.Option("--origin", help="Web origin whose pages may ask, * for all; may be repeated.")
    ] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, help="Answers made at once, in one batch, a model.")] = 8,
    waiting: Annotated[
        int, typer.Option("--waiting", min=0, help="Answers that may queue for a slot; more are refused.")
    ] = 32,
    sessions: Annotated[int, typer.Option("--sessions", min=1, help="Open conversations, a process.")] = 64,
    requests_a_minute: Annotated[int, typer.Option("--requests-a-minute", min=0, help="Of one key; 0: any.")] = 0,
    drain_seconds: Annotated[
        float, typer.Option("--drain-seconds", callback=positive, help="For answers under way at the end.")
    ] = 30.0,
    llm: Llm = None,
    device: Device = "auto",
    dtype: Dtype = None,
) -> None:
    """Serve models to OpenAI's clients (chat, speech, transcriptions, realtime) and, at /, a page to talk to them."""
    for package in ("fastapi", "uvicorn", "websockets", "prometheus_client"):
        require(package, extra="serve")
    from echox.serve.run import check_address
    from echox.serve.run import serve as run
    from echox.serve.settings import Limits, Settings

    limits = Limits(
        slots=slots,
        waiting=waiting,
        sessions=sessions,
        requests_a_minute=requests_a_minute,
        drain_seconds=drain_seconds,
    )
    keys = [*(key or []), *filter(None, os.environ.get("ECHOX_API_KEYS", "").split(","))]
    signed = {"secret": secret} if (secret := os.environ.get("ECHOX_SECRET")) else {}
    settings = Settings(
        tuple(model or ["mini"]), llm, device, dtype, tuple(keys), tuple(origin or []), limits=limits, **signed
    )
    check_address(host, port)
    open_to_all = host not in ("127.0.0.1", "localhost", "::1") and not keys
    where = f"http://{host}:{port}" + (" (no --key: whoever reaches it may ask)" if open_to_all else "")
    run(settings, host, port, workers, tell=lambda: typer.echo(where, err=True))
