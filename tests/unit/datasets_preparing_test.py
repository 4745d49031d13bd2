"""The door of jobs: uploaded files and exported datasets, of the tenant and of nobody else."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from history.conversation import Conversation, Reply, Turn
from history.message import message
from training.datasets.folder import DatasetFolder
from training.datasets.gathering import Gathering
from training.datasets.job_datasets import JobDatasets
from training.datasets.rules import DatasetRules, Form
from training.datasets.talk import Talk
from training.errors import BadDataset, FileMissing
from training.job import Job, Method
from training.ports import Datasets, Prepared, Purpose, StoredFile

ANSWERS = 8


class Files:
    """A FileStore over one folder, where a file's id is its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def create(
        self, tenant: str, filename: str, purpose: Purpose, content: AsyncIterator[bytes], *, now: float
    ) -> StoredFile:
        raise NotImplementedError

    async def get(self, tenant: str, file_id: str) -> StoredFile:
        path = await self.path(tenant, file_id)
        return StoredFile(file_id, tenant, f"{file_id}.jsonl", "fine-tune", path.stat().st_size, "", 0.0)

    async def list(self, tenant: str) -> tuple[StoredFile, ...]:
        return ()

    async def delete(self, tenant: str, file_id: str) -> None:
        raise NotImplementedError

    async def path(self, tenant: str, file_id: str) -> Path:
        path = self._folder / tenant / file_id
        if not path.exists():
            raise FileMissing(file_id)
        return path


class House:
    """The shared folder, with uploads and datasets in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.datasets: Datasets = JobDatasets(Files(folder / "files"), folder / "datasets")

    def upload(self, name: str, *records: dict[str, Any], tenant: str = "t") -> str:
        path = self.folder / "files" / tenant / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(one) + "\n" for one in records))
        return name

    def export(self, *, form: Form = "sharegpt", share: float = 0.0, tenant: str = "t") -> str:
        rules = DatasetRules(form=form, eval_share=share, near=0)
        with DatasetFolder(self.folder / "datasets", form) as making:
            gathering = Gathering(rules, tenant, making)
            for number in range(ANSWERS):
                gathering.take(talk(number))
            return gathering.finish(now=1.0).name

    async def prepare(self, train: str, validation: str = "", method: Method = "supervised") -> Prepared:
        job = Job(
            id="j",
            tenant="t",
            model="m",
            recipe="lora",
            created_at=0,
            updated_at=0,
            training_file=train,
            validation_file=validation,
            method=method,
        )
        return await self.datasets.prepare(job, self.folder / "jobs" / "j" / "dataset")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def talk(number: int) -> Talk:
    def turn(answer: str) -> Turn:
        made = [message({"role": "user", "content": "q"}), message({"role": "assistant", "content": answer})]
        digests = b"".join(one.digest for one in made)
        return Turn(tuple(one.json for one in made), digests, reply=Reply(model="m"), mark=answer.encode())

    conversation = Conversation(user=f"u{number}", metadata=b'{"training_consent":"true"}', turn_count=1)
    return Talk(
        f"c{number}", conversation, (turn(f"new {number}"),), branches=((0, (turn(f"old {number}"),)),)
    )


def chat(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"{text}!"}]}


def rows(made: Prepared, name: str) -> list[dict[str, Any]]:
    info = json.loads((made.folder / "dataset_info.json").read_text())
    return [json.loads(row) for row in (made.folder / info[name]["file_name"]).read_text().splitlines()]


async def test_an_upload_is_prepared_and_prepared_again(house: House) -> None:
    """Over what an earlier attempt has left, and without a validation nothing is held out."""
    name = house.upload("file-1", chat("a"), chat("b"))
    first = await house.prepare(name)
    again = await house.prepare(name)
    assert first == again
    assert (2, "", False) == (first.examples, first.evaluation, first.mask_history)
    assert 2 == len(rows(first, first.train))


async def test_what_is_validated_is_not_trained(house: House) -> None:
    """A record that shares thirteen words in a row with the validation is left out and named."""
    shared = " ".join(f"word{number}" for number in range(13))
    train = house.upload("file-1", chat("a"), chat(f"so {shared}"), chat("b"))
    made = await house.prepare(train, house.upload("file-2", chat(shared), chat("a")))
    assert (2, 2) == (made.examples, len(rows(made, made.evaluation)))
    assert any("1 records share text with the validation file: 2" in note for note in made.notes)
    with pytest.raises(BadDataset, match="nothing is left to train on"):
        await house.prepare(house.upload("file-3", chat(shared)), "file-2")


async def test_weights_in_the_validation_mask_the_training_too(house: House) -> None:
    """There is one such setting for both files."""
    talk_ = {"messages": [*chat("a")["messages"], *chat("b")["messages"]]}
    weighed = json.loads(json.dumps(talk_))
    weighed["messages"][1]["weight"] = 0
    made = await house.prepare(house.upload("file-1", talk_), house.upload("file-2", weighed))
    assert (True, 2, 1) == (made.mask_history, made.examples, len(rows(made, made.evaluation)))


@pytest.mark.parametrize("form", ["sharegpt", "alpaca"])
@pytest.mark.parametrize("method", ["supervised", "dpo"])
async def test_an_exported_dataset_is_prepared(house: House, form: Form, method: Method) -> None:
    """With the users that it holds out, in its own form; the trainer has to mask the history."""
    made = await house.prepare(house.export(form=form, share=0.4), method=method)
    held = rows(made, made.evaluation)
    assert made.mask_history
    assert made.examples == len(rows(made, made.train)) == ANSWERS - len(held)
    assert 0 < len(held) < ANSWERS


async def test_an_exported_dataset_is_validated_by_a_file(house: House) -> None:
    """Instead of by its own users; what lies in the dataset's folder stays as it was."""
    dataset = house.export(share=0.4)
    await house.prepare(dataset)
    before = {path.name: path.read_bytes() for path in (house.folder / "datasets" / dataset).iterdir()}
    made = await house.prepare(dataset, house.upload("file-1", chat("a"), chat("b")))
    assert ["a!", "b!"] == [row["dialogue"][-1]["content"] for row in rows(made, made.evaluation)]
    assert before == {
        path.name: path.read_bytes() for path in (house.folder / "datasets" / dataset).iterdir()
    }


async def test_nobody_trains_on_what_is_not_theirs(house: House) -> None:
    """Neither on another tenant's files nor on its datasets; both are as if they were not there."""
    house.upload("file-1", chat("a"), tenant="other")
    for name in ("file-1", house.export(tenant="other"), "ds-0123456789abcdef", "file-2"):
        with pytest.raises(FileMissing):
            await house.prepare(name)


@pytest.mark.parametrize(
    ("record", "method", "reason"),
    [
        (chat("a"), "dpo", "has no preference pairs"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "supervised", "has preference pairs"),
    ],
)
async def test_a_method_gets_what_it_trains_on(
    house: House, record: dict[str, Any], method: Method, reason: str
) -> None:
    """Pairs for dpo, answers for everything else."""
    with pytest.raises(BadDataset, match=reason):
        await house.prepare(house.upload("file-1", record), method=method)


async def test_a_dataset_that_was_changed_is_refused(house: House) -> None:
    """And so is one as a validation, which it has in itself."""
    dataset = house.export()
    with pytest.raises(BadDataset, match="holds users out by itself"):
        await house.prepare(house.upload("file-1", chat("a")), dataset)
    with (house.folder / "datasets" / dataset / "train.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(BadDataset, match="is not what was exported"):
        await house.prepare(dataset)
