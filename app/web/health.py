"""Tells load balancers and start-up scripts whether this process can serve."""

from fastapi import APIRouter, Depends
from sqlalchemy import text

from app.database import SessionDep
from app.web.access import Public

router = APIRouter()


@router.get("/health", dependencies=[Depends(Public("says nothing but that the app and its database answer"))])
def health(session: SessionDep) -> dict[str, str]:
    """Answer once the database answers."""
    session.execute(text("SELECT 1"))
    return {"status": "ok"}
