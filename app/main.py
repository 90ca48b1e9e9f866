"""Wires the web app together; run it with ``uvicorn --factory app.main:create_served_app``."""

import gc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TypedDict

from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.staticfiles import StaticFiles

from app import logs
from app.accounts import routes as accounts
from app.annotation import routes as annotation
from app.background import reconciling
from app.batches import routes as batches
from app.checkpoints import routes as checkpoints
from app.database import Database, connect, require_current_schema
from app.datasets import routes as datasets
from app.external import routes as external
from app.insights import routes as insights
from app.metrics import routes as metrics
from app.metrics.counting import CountRequests, Counts
from app.paths import STATIC
from app.pool import routes as pool
from app.review import routes as review
from app.sampling import admin_routes as workers
from app.sampling import routes as sampling
from app.sampling.waiting import Lookout
from app.settings import Settings
from app.training import routes as training
from app.training_sets import routes as training_sets
from app.web import api_documentation, error_pages, health
from app.web.security import SecurityHeaders

_COMPRESS_FROM_BYTES = 1024
# By default it is 700, which a single page exceeds many times.
_OBJECTS_BETWEEN_COLLECTIONS = 50_000
# Of forms; the worker API, which sends whole responses with their tokens, allows itself more.
_MAX_BODY_BYTES = 1024 * 1024


class State(TypedDict):
    """What every request can reach through ``request.state``."""

    database: Database
    settings: Settings
    lookout: Lookout
    counts: Counts


def create_app(settings: Settings | None = None) -> FastAPI:
    """The web app. Its database must be migrated; secrets are made where they are missing."""
    logs.configure()
    settings = settings or Settings()
    counts = Counts()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[State]:
        settings.ensure_secrets()
        database = connect(settings.database_url)
        require_current_schema(database, settings.database_url)
        with reconciling(database, settings):
            yield {"database": database, "settings": settings, "lookout": Lookout(database), "counts": counts}
        database.dispose()

    # Without openapi_url there are no pages of documentation either: nothing is open by default.
    app = FastAPI(title="Preferably", lifespan=lifespan, openapi_url=None)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(CountRequests, counts=counts)
    error_pages.install(app)
    # Pages are compressed where they are rendered; downloads are not, since they must keep their byte ranges.
    app.mount("/static", GZipMiddleware(StaticFiles(directory=STATIC), minimum_size=_COMPRESS_FROM_BYTES))
    for routes in (
        health,
        metrics,
        accounts,
        sampling,
        training,
        annotation,
        # Before the datasets, whose names stand where these have words.
        external,
        training_sets,
        api_documentation,
        datasets,
        review,
        batches,
        pool,
        checkpoints,
        workers,
        insights,
    ):
        # Here and not on the app, whose own refusal would pass by the security headers.
        app.include_router(routes.router, max_body_size=_MAX_BODY_BYTES)
    return app


def create_served_app() -> FastAPI:
    """The web app for a process that does nothing but serve it: what it consists of is never looked at as garbage.

    Without that, one annotator's cycle in a hundred waits for the collector.
    """
    app = create_app()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *gc.get_threshold()[1:])
    return app
