"""Commands on jobs."""

from typing import Any

from pileus.server.api import render
from pileus.server.api.command import (
    EVERYONE,
    SUCCESS,
    Call,
    Instant,
    ListParams,
    Page,
    Params,
    Response,
    SuccessResponse,
    View,
    command,
    out,
    param,
    registry,
)
from pileus.server.domain.errors import PileusError
from pileus.server.domain.ids import Domain, Id, Job
from pileus.server.domain.job import JobStatus
from pileus.server.services import job


class JobResponse(Response, name="asyncjobs"):
    """A job."""

    account_id = out("the account that executed the job")
    user_id = out("the user that executed the job")
    cmd = out("the command executed")
    job_status = out("0 while the job is pending, 1 once it succeeded, 2 once it failed", "integer")
    job_proc_status = out("the progress information of the job", "integer")
    job_result_code = out("0, or the error code of a failed job", "integer")
    job_result_type = out("the type of the result: object")
    job_result = out("what a synchronous call would have answered, or the error", "responseobject")
    job_instance_type = out("the type of the object the job works on")
    job_instance_id = out("the ID of the object the job works on")
    created = out("when the job was created", "date")
    completed = out("when the job ended", "date")
    job_id = out("the ID of the job")


class JobResultResponse(Response, name=""):
    """A job, told without an object of its own around it."""

    account_id = JobResponse.account_id
    user_id = JobResponse.user_id
    cmd = JobResponse.cmd
    job_status = JobResponse.job_status
    job_proc_status = JobResponse.job_proc_status
    job_result_code = JobResponse.job_result_code
    job_result_type = JobResponse.job_result_type
    job_result = JobResponse.job_result
    job_instance_type = JobResponse.job_instance_type
    job_instance_id = JobResponse.job_instance_id
    created = JobResponse.created
    completed = JobResponse.completed
    job_id = JobResponse.job_id


@command("queryAsyncJobResult", roles=EVERYONE, returns=JobResultResponse)
class QueryAsyncJobResult(Params):
    """Tells the status of a job, and its result once it has ended."""

    job_id: Id[Job] = param("the ID of the job")

    def run(self, call: Call) -> View:
        outcome = job.outcome(call.tx, call.caller, self.job_id)
        if outcome.status is JobStatus.PENDING:
            return outcome.view
        return {**outcome.view, "job_result_type": "object", "job_result": _result(call, outcome)}


@command("listAsyncJobs", roles=EVERYONE, returns=JobResponse)
class ListAsyncJobs(ListParams):
    """Lists all pending jobs of the account."""

    account: str | None = param("list jobs of this account; needs domainid unless it is in your domain", default=None)
    domain_id: Id[Domain] | None = param("list jobs of accounts of this domain", default=None)
    is_recursive: bool | None = param("with domainid, also of the domains below it", default=None)
    list_all: bool | None = param("list all jobs that you may see", default=None)
    start_date: Instant | None = param("list jobs created since this date", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *job.list_page(
                call.tx,
                call.caller,
                account=self.account,
                domain_id=self.domain_id,
                list_all=self.list_all,
                is_recursive=self.is_recursive,
                start=self.start_date,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )


def _result(call: Call, outcome: job.Outcome) -> dict[str, Any]:
    if outcome.status is JobStatus.FAILED:
        return {"errorcode": outcome.error_code, "errortext": outcome.error_text}
    spec = registry.get(outcome.command)
    response = SuccessResponse if spec is None else spec.returns
    if response.load is None or outcome.instance_id is None:
        return dict(render.inner(SuccessResponse, SUCCESS))
    try:
        view = response.load(call.tx, call.caller, outcome.instance_id)
    except PileusError:
        # It worked, and what it made is gone since.
        return dict(render.inner(SuccessResponse, SUCCESS))
    return dict(render.inner(response, {**view, **outcome.facts}))
