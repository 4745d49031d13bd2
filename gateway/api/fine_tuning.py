"""`/v1/fine_tuning/jobs`: OpenAI's fine-tuning API over the training jobs."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.api.conversation_body import read_body, read_fields
from gateway.api.conversations import Identify, as_endpoint
from gateway.api.fine_tuning_body import read_filter, read_idempotency_key, read_page, read_wanted
from gateway.api.fine_tuning_objects import checkpoint_object, event_object, job_object
from gateway.errors import BadRequest
from gateway.fine_tuning import Training
from gateway.keys.key import require
from training.job import Change, Job, JobEvent, Status
from training.progress import checkpoints

PATH = "/v1/fine_tuning/jobs"
_MAX_BODY = 64 * 1024

Answer = dict[str, Any]


class FineTuningRoutes:
    """The handlers."""

    def __init__(self, training: Training, identify: Identify) -> None:
        self._training = training
        self._identify = identify

    def router(self) -> APIRouter:
        """All routes."""
        routes = APIRouter(prefix=PATH, default_response_class=Response)
        table: tuple[tuple[str, str, Callable[..., Awaitable[Answer]]], ...] = (
            ("POST", "", self.create),
            ("GET", "", self.list),
            ("GET", "/{job_id}", self.retrieve),
            ("GET", "/{job_id}/events", self.events),
            ("GET", "/{job_id}/checkpoints", self.checkpoints),
            ("POST", "/{job_id}/cancel", self._changes(Change.CANCEL)),
            ("POST", "/{job_id}/pause", self._changes(Change.PAUSE)),
            ("POST", "/{job_id}/resume", self._changes(Change.RESUME)),
        )
        for method, path, handler in table:
            routes.add_api_route(path, as_endpoint(handler), methods=[method], response_model=None)
        return routes

    async def create(self, request: Request) -> Answer:
        """A job, recorded and queued before this answers."""
        caller = self._identify(request)
        jobs = self._training.need_jobs()
        key = read_idempotency_key(request.headers)
        fields = read_fields(await read_body(request, _MAX_BODY))
        wanted = read_wanted(fields, recipe=self._training.recipe)
        require(caller, scope="inference", model=wanted.model)
        return job_object(await jobs.create(caller.tenant, wanted, key=key))

    async def list(self, request: Request) -> Answer:
        """A page of a tenant's jobs, newest first."""
        tenant, jobs = self._identify(request).tenant, self._training.need_jobs()
        after, limit = read_page(request.query_params)
        keeps = read_filter(request.query_params)
        page, has_more = await jobs.page(tenant, after=after, limit=limit, keeps=keeps)
        return _list([await self._shown(job) for job in page], has_more=has_more)

    async def retrieve(self, request: Request) -> Answer:
        """One job."""
        return await self._shown(await self._job(request))

    async def events(self, request: Request) -> Answer:
        """Its story, newest first."""
        job = await self._job(request)
        story = await self._training.need_jobs().events(job)
        return _page(request, [event_object(job, event) for event in reversed(story)])

    async def checkpoints(self, request: Request) -> Answer:
        """What was saved of it, newest first."""
        job = await self._job(request)
        story = await self._training.need_jobs().events(job)
        return _page(request, [checkpoint_object(job, step, event) for step, event in checkpoints(story)])

    def _changes(self, change: Change) -> Callable[[Request], Awaitable[Answer]]:
        async def handler(request: Request) -> Answer:
            tenant, jobs = self._identify(request).tenant, self._training.need_jobs()
            return job_object(await jobs.change(tenant, request.path_params["job_id"], change))

        return handler

    async def _job(self, request: Request) -> Job:
        tenant = self._identify(request).tenant
        return await self._training.need_jobs().get(tenant, request.path_params["job_id"])

    async def _shown(self, job: Job) -> Answer:
        """With its events only where they say something: when it will be done."""
        events: Sequence[JobEvent] = ()
        if job.status is Status.RUNNING:
            events = await self._training.need_jobs().events(job)
        return job_object(job, events)


def _page(request: Request, objects: Sequence[Answer]) -> Answer:
    after, limit = read_page(request.query_params)
    start = 0
    if after is not None:
        start = 1 + next((n for n, one in enumerate(objects) if one["id"] == after), -1)
        if not start:
            raise BadRequest("after must be the id of one of these objects", param="after")
    return _list(objects[start : start + limit], has_more=len(objects) > start + limit)


def _list(objects: Sequence[Answer], *, has_more: bool) -> Answer:
    return {
        "object": "list",
        "data": objects,
        "first_id": objects[0]["id"] if objects else None,
        "last_id": objects[-1]["id"] if objects else None,
        "has_more": has_more,
    }
