"""What Prometheus reads."""

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.database import DatabaseDep
from app.metrics import gauges
from app.metrics.counting import CountsDep
from app.models import now
from app.settings import Settings
from app.web.access import MetricsAccess

router = APIRouter()


@router.get("/metrics", dependencies=[Depends(MetricsAccess())])
def metrics(request: Request, database: DatabaseDep, counts: CountsDep) -> Response:
    """Everything in Prometheus' text format: gauges from one short look at the database, counts of this process."""
    settings: Settings = request.state.settings
    with database.read() as session:
        reading = gauges.read(session, at=now(), lease_s=settings.lease_s)
    text = generate_latest(reading) + generate_latest(counts.registry())
    return Response(text, media_type=CONTENT_TYPE_LATEST)
