"""`/v1/files` through OpenAI's own client, against a gateway process."""

import contextlib
import hashlib
import http.client
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.gateway_process import Gateway, running_gateway, until

LINE = (
    b'{"messages": [{"role": "user", "content": "SECRET-PROMPT"}, {"role": "assistant", "content": "hm"}]}\n'
)


def gateway_over(folder: Path, *options: str) -> contextlib.AbstractContextManager[Gateway]:
    """A gateway that keeps files there; nobody is asked for a key."""
    return running_gateway(
        "vllm=http://127.0.0.1:1", options=("--set", f"training.folder={folder}", *options)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What gateway and workers share."""
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[Gateway]:
    """One for this file."""
    with gateway_over(folder, "--set", "training.max_file_bytes=5000000") as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """The official client."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as one:
        yield one


def test_a_file_comes_back_as_it_went(client: openai.OpenAI, gateway: Gateway, folder: Path) -> None:
    """Create, retrieve, content, list and delete; nothing of it in the log, no tenant's name in a path."""
    content = LINE * 30_000

    created = client.files.create(file=("../down\n/to\\talk ✓.jsonl", content), purpose="fine-tune")

    assert (created.object, created.purpose, created.bytes) == ("file", "fine-tune", len(content))
    assert created.filename == "talk ✓.jsonl"
    assert created == client.files.retrieve(created.id)
    assert content == client.files.content(created.id).read()
    assert created.id in [one.id for one in client.files.list()]
    (kept,) = folder.rglob(created.id)
    assert content == kept.read_bytes()
    assert "default" not in str(kept.relative_to(folder))
    assert hashlib.sha256(content).hexdigest() == created.to_dict()["sha256"]
    deleted = client.files.delete(created.id)
    assert (created.id, "file", True) == (deleted.id, deleted.object, deleted.deleted)
    assert [] == list(folder.rglob(f"{created.id}*"))
    with pytest.raises(openai.NotFoundError) as caught:
        client.files.content(created.id)
    assert caught.value.code == "file_not_found"
    assert "SECRET" not in gateway.stderr()


def test_pages_make_up_the_whole_list(client: openai.OpenAI) -> None:
    """In both orders, and of one purpose alone; the client walks them by itself."""
    made = [
        client.files.create(file=(f"{n}.jsonl", LINE), purpose=purpose)
        for n, purpose in enumerate(("evals", "fine-tune", "evals", "evals"))
    ]
    ids = {one.id for one in made if one.purpose == "evals"}

    newest = [one.id for one in client.files.list(purpose="evals", limit=2)]
    oldest = [one.id for one in client.files.list(purpose="evals", limit=2, order="asc")]

    assert ids == set(newest)
    assert newest == oldest[::-1]
    assert len(client.files.list(limit=2).data) == 2
    with pytest.raises(openai.BadRequestError):
        client.files.list(after="file-none")
    for one in made:
        client.files.delete(one.id)


def test_the_form_may_name_the_purpose_behind_the_file(gateway: Gateway) -> None:
    """As the JavaScript client sends it."""
    answer = httpx.post(
        f"{gateway.url}/v1/files",
        files=[("file", ("a.jsonl", LINE)), ("purpose", (None, b"fine-tune"))],
        trust_env=False,
    )

    assert (200, "fine-tune") == (answer.status_code, answer.json()["purpose"])


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([("purpose", (None, b"fine-tune"))], "file"),
        ([("file", ("a", LINE))], "purpose"),
        ([("file", ("a", LINE)), ("purpose", (None, b"vision"))], "purpose"),
        ([("file", ("a", b"")), ("purpose", (None, b"fine-tune"))], "file"),
        ([("file", ("a", LINE)), ("file", ("b", LINE)), ("purpose", (None, b"fine-tune"))], "file"),
        (
            [
                ("expires_after[seconds]", (None, b"3600")),
                ("purpose", (None, b"evals")),
                ("file", ("a", LINE)),
            ],
            "expires_after[seconds]",
        ),
        ([("purpose", (None, b"x" * 5000)), ("file", ("a", LINE))], "purpose"),
        ([(f"p{n}", (None, b"1")) for n in range(20)], None),
    ],
)
def test_a_form_that_cannot_be_kept_is_refused_by_its_field(
    gateway: Gateway, folder: Path, parts: list[tuple[str, tuple[str | None, bytes]]], param: str | None
) -> None:
    """And leaves nothing on the disk."""
    before = sorted(folder.rglob("*"))

    answer = httpx.post(f"{gateway.url}/v1/files", files=parts, trust_env=False)

    assert (400, param) == (answer.status_code, answer.json()["error"]["param"])
    assert before == [path for path in sorted(folder.rglob("*")) if path.exists()] or not before


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"no form at all"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{"cut": ',
        ),
    ],
)
def test_a_body_that_is_no_whole_form_is_refused(gateway: Gateway, kind: str, body: bytes) -> None:
    """With words, not with a 500."""
    answer = httpx.post(
        f"{gateway.url}/v1/files", content=body, headers={"content-type": kind}, trust_env=False
    )

    assert (400, "file") == (answer.status_code, answer.json()["error"]["param"])


def test_a_file_over_the_limit_is_refused_before_it_came(client: openai.OpenAI, folder: Path) -> None:
    """By its announced length, and by its bytes where none was announced."""
    with pytest.raises(openai.APIStatusError) as caught:
        client.files.create(file=("big.jsonl", b"x" * 5_200_000), purpose="fine-tune")
    assert (413, "file_too_large") == (caught.value.status_code, caught.value.code)

    with pytest.raises(openai.APIStatusError) as caught:
        client.files.create(file=("big.jsonl", b"x" * 5_000_001), purpose="fine-tune")
    assert (413, "file_too_large") == (caught.value.status_code, caught.value.code)
    assert until(lambda: not list(folder.rglob("*.part")))


def test_a_client_that_leaves_in_the_middle_leaves_nothing(gateway: Gateway, folder: Path) -> None:
    """The disk holds whole files only."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
    connection.putrequest("POST", "/v1/files")
    connection.putheader("content-type", "multipart/form-data; boundary=x")
    connection.putheader("content-length", "4000000")
    connection.endheaders()
    connection.send(head + b"x" * 2_000_000)
    assert until(lambda: any(path.stat().st_size for path in folder.rglob("*.part")))

    connection.close()

    assert until(lambda: not list(folder.rglob("*.part")))


def test_what_was_acknowledged_survives_the_kill(tmp_path: Path) -> None:
    """SIGKILL right behind the answer; the next gateway has it, whole."""
    with contextlib.suppress(ChildProcessError), gateway_over(tmp_path) as gateway:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            created = client.files.create(file=("a.jsonl", LINE), purpose="fine-tune")
        gateway.process.send_signal(signal.SIGKILL)
        gateway.process.wait(10)

    with (
        gateway_over(tmp_path) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client,
    ):
        assert created == client.files.retrieve(created.id)
        assert client.files.content(created.id).read() == LINE


def test_without_a_folder_the_paths_say_what_to_set() -> None:
    """Files and jobs alike, and the operator's list."""
    with running_gateway("vllm=http://127.0.0.1:1") as gateway:
        answers = [
            httpx.get(f"{gateway.url}/v1/files", trust_env=False),
            httpx.post(f"{gateway.url}/v1/files", trust_env=False),
            httpx.get(f"{gateway.url}/v1/fine_tuning/jobs", trust_env=False),
            httpx.post(f"{gateway.url}/v1/fine_tuning/jobs", json={}, trust_env=False),
            httpx.get(f"{gateway.admin_url}/admin/jobs", trust_env=False),
        ]

    for answer in answers:
        error = answer.json()["error"]
        assert (501, "not_set_up") == (answer.status_code, error["code"])
        assert "training.folder" in error["message"]
