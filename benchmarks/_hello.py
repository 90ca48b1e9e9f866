"""The web app with one more page, which says hello: what the server itself costs. For benchmarks only."""

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from app.main import create_app as create_real_app


def create_app() -> FastAPI:
    """The app as it is, and ``/hello``."""
    app = create_real_app()

    @app.get("/hello")
    def hello() -> PlainTextResponse:
        return PlainTextResponse("hello")

    return app
