"""The page of statistics over all batches, in the columns of Llama 2's Table 26."""

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.batches import service as batches
from app.database import SessionDep
from app.insights import service
from app.insights.statistics import BatchStatistics
from app.models import Batch
from app.web.access import AdminDep
from app.web.templating import Page, render

router = APIRouter()


@dataclass(frozen=True, kw_only=True)
class InsightsPage(Page):
    """What the annotations of all batches say."""

    title: str = "Insights"
    batches: list[tuple[Batch, BatchStatistics]]


@router.get("/admin/insights")
def insights_page(request: Request, session: SessionDep, _visitor: AdminDep) -> HTMLResponse:
    """The statistics of every batch that has opened, the oldest first."""
    opened = batches.opened(session)
    page = InsightsPage(batches=service.statistics_of(session, opened))
    return render(request, "insights/insights.html", page)
