"""The web app with one more page, which says hello: what the server itself costs. For benchmarks only."""

import sys

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from app import serving
from app.main import create_served_app


def create_app() -> FastAPI:
    """The app as it is, and ``/hello``."""
    app = create_served_app()

    @app.get("/hello")
    def hello() -> PlainTextResponse:
        return PlainTextResponse("hello")

    return app


if __name__ == "__main__":
    serving.serve("benchmarks._hello:create_app", host="127.0.0.1", port=int(sys.argv[1]), processes=int(sys.argv[2]))
