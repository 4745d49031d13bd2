"""The control plane's view of training: everybody's jobs, each with its loss curve."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from gateway.api.fine_tuning_objects import listed_job
from gateway.fine_tuning import Training

_After = Annotated[str | None, Query(max_length=128)]


def job_admin_routes(training: Training) -> APIRouter:
    """The routes, to stand under `/admin`."""
    routes = APIRouter()

    @routes.get("/jobs")
    async def list_jobs(
        after: _After = None, limit: Annotated[int, Query(ge=1, le=50)] = 20
    ) -> dict[str, Any]:
        jobs = training.need_jobs()
        page, has_more = await jobs.everybodys(after=after, limit=limit)
        shown = [listed_job(job, await jobs.events(job)) for job in page]
        return {"object": "list", "data": shown, "has_more": has_more}

    return routes
