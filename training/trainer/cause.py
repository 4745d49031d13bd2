"""Why a run failed, read from the end of its log. Pure.

Every failure of LLaMA-Factory has exit code 1. Under torchrun the last lines are its own ChildFailedError and
the launcher's CalledProcessError; the cause is further up, behind "[rank0]:". Dialogues must not reach a
record, and an exception's text may quote one: it is told only where its form is known. Of others,
the kind and the place are.
"""

import re

from training.job import JobError

_KIND = r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Failure|Timeout|Full)"
_RAISED = re.compile(rf"^(?:\[rank\d+\]:\s?)?(?P<kind>{_KIND})(?::\s?(?P<text>.*))?$")
_PLACE = re.compile(r'^(?:\[rank\d+\]:\s?)?\s*File "(?P<path>[^"]{1,300})", line (?P<line>\d+)')
_LAUNCHERS = ("ChildFailedError", "CalledProcessError", "SignalException")
_SIGNAL = re.compile(r"Signal (\d+) \((SIG[A-Z]+)\) received by PID")
MOST_TEXT = 300

_WORD = r"[\w./:@+-]{1,120}"
_LIST = r"[\w./:@+',\s{}\[\]-]{1,200}"

_KNOWN: tuple[tuple[str, str, str], ...] = (
    (r"CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED", "gpu_memory",
     "The GPU's memory was too small: lower batch_size, use LoRA or another recipe"),
    (r"^(?:.*\.)?OutOfMemoryError", "gpu_memory",
     "The GPU's memory was too small: lower batch_size, use LoRA or another recipe"),
    (r"^MemoryError|Cannot allocate memory|can't allocate memory|not enough memory", "memory",
     "The machine's memory was too small: give the worker more, or use LoRA"),
    (r"No space left on device|Disk quota exceeded", "disk_full",
     "The disk with training.folder is full: make room and submit the job again"),
    (r"(?:NCCL|nccl|ncclSystemError|ProcessGroupNCCL)", "gpu_network",
     "The GPUs could not talk to each other (NCCL): see the job's trainer.log"),
    (r"CUDA error|CUDA driver|no kernel image|AcceleratorError", "gpu_error",
     "The GPU or its driver failed: see the job's trainer.log"),
    (rf"Some keys are not used by the HfArgumentParser: (?P<told>{_LIST})", "bad_recipe",
     "The recipe has settings that LLaMA-Factory does not know"),
    (rf"Target modules (?P<told>{_LIST}) not found", "bad_recipe",
     "The recipe trains modules that the model does not have"),
    (rf"Template (?P<told>{_WORD}) does not exist", "bad_recipe", "LLaMA-Factory has no such template"),
    (r"doesn't support bf16|bf16/gpu", "bad_recipe",
     "This machine cannot train in bf16: choose another precision"),
    (rf"(?P<told>{_WORD}) is not a valid \w*Strategy", "bad_recipe", "The recipe names an unknown strategy"),
    (rf"PackageNotFoundError: (?:The )?'?(?P<told>{_WORD})", "trainer_incomplete",
     "LLaMA-Factory's environment lacks a package"),
    (rf"No module named '(?P<told>{_WORD})'", "trainer_incomplete",
     "LLaMA-Factory's environment lacks a module"),
    (r"Failed to load (?:the )?(?:tokenizer|processor|model|config)|does not appear to have a file named",
     "bad_model",
     "The base model could not be loaded: check the folder given with --models"),
    (rf"Undefined dataset (?P<told>{_WORD})", "bad_dataset", "The dataset is not registered"),
    (r"Cannot find valid samples", "bad_dataset", "LLaMA-Factory found no example that it can use"),
    (r"UnicodeDecodeError|DatasetGenerationError|ArrowInvalid|Expected a string, got|Invalid JSON format",
     "bad_dataset",
     "LLaMA-Factory could not read the dataset"),
    (r"Can't find a valid checkpoint|checkpoint.*(?:corrupt|invalid)", "bad_checkpoint",
     "The checkpoint could not be read: submit the job again"),
    (r"address already in use|EADDRINUSE", "port_taken", "torchrun's port is taken: set MASTER_PORT"),
)  # fmt: skip


def cause(log: str, code: int) -> JobError:
    """The failure in words. `code` is negative for a signal."""
    raised = _raised(log)
    for line, place in reversed(raised):
        known = _known(line)
        if known is not None:
            return JobError(known.code, f"{known.message}. [{_kind(line)}{place}]")
    if raised:
        line, place = raised[-1]
        told = f"LLaMA-Factory ended with {_kind(line)}{place}; the job's trainer.log has the rest."
        return JobError("trainer_failed", told)
    signals = _SIGNAL.findall(log)
    if signals:
        return killed(signals[-1][1])
    if code < 0:
        return killed(f"signal {-code}")
    told = f"LLaMA-Factory ended with exit code {code} and named no reason: see the job's trainer.log."
    return JobError("trainer_failed", told)


def killed(what: str) -> JobError:
    """Ended from outside."""
    return JobError(
        "trainer_killed",
        f"The trainer was ended by {what}. With SIGKILL (9) that is most often the system, short of memory:"
        " look into its log, give it more or use LoRA, and submit the job again.",
    )


def _raised(log: str) -> list[tuple[str, str]]:
    """The exceptions in the log in order, without the launchers', each with where it was raised."""
    found, place = [], ""
    for line in log.splitlines():
        at = _PLACE.match(line)
        if at:
            place = f", {_short(at['path'])} line {at['line']}"
            continue
        raised = _RAISED.match(line.rstrip())
        if raised:
            if not raised["kind"].endswith(_LAUNCHERS):
                found.append((f"{raised['kind']}: {(raised['text'] or '')[:2000]}", place))
            place = ""
    return found[-20:]


def _known(line: str) -> JobError | None:
    for pattern, code, message in _KNOWN:
        found = re.search(pattern, line)
        if found:
            told = found.groupdict().get("told")
            return JobError(code, f"{message}: {told[:MOST_TEXT].strip()}" if told else message)
    return None


def _kind(line: str) -> str:
    return line.partition(":")[0].rpartition(".")[2]


def _short(path: str) -> str:
    """From the package on: where an environment lies is nobody's business."""
    return path.rpartition("/site-packages/")[2] if "/site-packages/" in path else path.rpartition("/")[2]
