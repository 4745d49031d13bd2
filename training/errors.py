"""What can go wrong in training, first forked by whose fault it is.

TrainingError
├── RequestFault             who asked can mend it
│   ├── InvalidJob           a field of the wanted job is missing, too long or not a name
│   ├── JobNotFound
│   ├── JobExists
│   ├── TooManyJobs
│   ├── FileMissing
│   ├── FileTooLarge
│   ├── TooManyFiles
│   ├── BadDataset           records of it would be dropped in silence, poison the model or end the trainer
│   └── IllegalTransition    the job's status does not allow the change
└── StoreFault               the request was right, what stands behind us was not
    ├── JobConflict          somebody else changed the job first: read it again and decide anew
    ├── RecordUnreadable     written by a newer version of this program
    ├── StoreUnavailable
    ├── ProbeFailed          what measures a trained version ended without an answer
    ├── RunFault             this machine could not start a trainer
    └── QueueUnavailable
"""


class TrainingError(Exception):
    """The root: everything this package raises on purpose."""


class RequestFault(TrainingError):
    """The caller can mend it."""


class StoreFault(TrainingError):
    """The store or the queue could not do its part."""


class InvalidJob(RequestFault):
    """A field of the wanted job does not hold what it must."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class JobNotFound(RequestFault):
    """No job has this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id}")
        self.job_id = job_id


class JobExists(RequestFault):
    """A job with this id was created before."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is a job {job_id} already; choose another id")
        self.job_id = job_id


class TooManyJobs(RequestFault):
    """The tenant's list of jobs is full."""

    def __init__(self, tenant: str, limit: int) -> None:
        super().__init__(f"tenant {tenant} has reached its limit of {limit} jobs")
        self.tenant = tenant
        self.limit = limit


class FileMissing(RequestFault):
    """The tenant has no file or dataset of this id."""

    def __init__(self, file_id: str) -> None:
        super().__init__(f"there is no file {file_id}")
        self.file_id = file_id


class FileTooLarge(RequestFault):
    """It is larger than a file may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"a file has at most {limit} bytes; split it, or raise the limit")
        self.limit = limit


class TooManyFiles(RequestFault):
    """The tenant has as many files as it may have, those under way included."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"there are {limit} files, and no more are kept; delete one that is not needed")
        self.limit = limit


class BadDataset(RequestFault):
    """It cannot be trained on as it is."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class IllegalTransition(RequestFault):
    """The job's status does not allow the change."""

    def __init__(self, job_id: str, status: str, change: str) -> None:
        super().__init__(f"job {job_id} is {status}, which allows no {change}")
        self.job_id = job_id
        self.status = status
        self.change = change


class JobConflict(StoreFault):
    """The record is not the version that the change was computed from."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} was changed by somebody else; read it again")
        self.job_id = job_id


class RecordUnreadable(StoreFault):
    """The record has a schema that this version does not know."""

    def __init__(self, job_id: str, schema: int, known: int) -> None:
        super().__init__(
            f"job {job_id} is written in schema {schema}, this version reads up to {known}: update it"
        )
        self.job_id = job_id
        self.schema = schema


class StoreUnavailable(StoreFault):
    """The job store did not answer; nothing is known about what it did."""


class ProbeFailed(StoreFault):
    """A trained version could not be measured; nothing is known of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the version could not be measured: {reason}")


class RunFault(StoreFault):
    """This machine could not start a trainer."""


class QueueUnavailable(StoreFault):
    """The queue did not take the job's id."""
