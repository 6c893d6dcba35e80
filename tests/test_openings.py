"""An opening that fails leaves no folder behind; whatever is committed, or not a run's, stays."""

import contextlib
import errno
import fcntl

import pytest

from ecosystem.errors import DataError, EcosystemError, StoreError
from ecosystem.runs.branch import Branch
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from tests.conftest import MACHINE, tiny


@pytest.fixture
def vectors():
    """A scenario that opens in no time, after which it has a folder."""
    return tiny(
        sources={"points": {"kind": "gaussian", "held_out": 20}},
        models={"normal": {"kind": "gaussian"}},
        policies={},
        curators={},
        writers={},
        measure={},
        steps=2,
        changes=[],
        web={"kind": "isolated", "sites": 4, "initial": {"source": "points", "documents": 40}},
        trainers={"lab": {"model": "normal", "publish": 5, "scrape": {"docs": 20}}},
    )


def start(scenario, out, **more):
    for snapshot in begin(scenario, out=out, machine=MACHINE, **more):
        yield snapshot.t


def fail(monkeypatch, error, step=0):
    """Let the commit of a step fail."""
    commit = Store.commit

    def failing(self, snapshot, **more):
        if snapshot.t == step:
            raise error
        return commit(self, snapshot, **more)

    monkeypatch.setattr(Store, "commit", failing)


@pytest.mark.parametrize(
    "error", [StoreError("full"), KeyboardInterrupt(), MemoryError()], ids=["error", "interruption", "memory"]
)
def test_an_opening_that_fails_leaves_no_folder(error, vectors, tmp_path, monkeypatch):
    fail(monkeypatch, error)
    with pytest.raises(type(error)):
        next(start(vectors, tmp_path / "new/outputs"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "old/outputs").mkdir(parents=True)
    with pytest.raises(type(error)):
        next(start(vectors, tmp_path / "old/outputs"))
    assert not list((tmp_path / "old/outputs").iterdir())  # it was there before


def test_a_source_that_cannot_be_read_leaves_no_folder(tmp_path):
    scenario = tiny().override({"sources.language": {"kind": "text", "path": "nowhere.txt"}})
    with pytest.raises(DataError, match=r"nowhere\.txt: no such file"):
        next(start(scenario, tmp_path / "outputs"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), Exception("No space left on device (os error 28)")]
)
def test_a_full_disk_is_a_sentence_wherever_it_fills(error, vectors, tmp_path, monkeypatch):
    fail(monkeypatch, error)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left .*Free some space and run"):
        next(start(vectors, tmp_path / "outputs"))
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_is_cleared_too(vectors, tmp_path, monkeypatch):
    def refused(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    fail(monkeypatch, StoreError("full"))
    with pytest.raises(StoreError, match="full"):
        next(start(vectors, tmp_path / "outputs"))
    assert not list(tmp_path.iterdir())


def test_committed_steps_and_files_of_others_stay(vectors, tmp_path, monkeypatch):
    fail(monkeypatch, StoreError("full"), step=1)
    with contextlib.suppress(StoreError):
        list(start(vectors, tmp_path))
    folder = folder_of(vectors, tmp_path)
    assert Store(folder).last() == 0
    other = vectors.override({"seed": 9})
    mine = folder_of(other, tmp_path) / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    fail(monkeypatch, StoreError("full"))
    with contextlib.suppress(StoreError):
        next(start(other, tmp_path))
    assert mine.read_text() == "mine" and Store(folder).last() == 0


def test_an_opening_in_progress_is_left_alone(vectors, tmp_path):
    folder = folder_of(vectors, tmp_path)
    with Store(folder).lock():
        Store(folder).write("scenario.toml", b"")  # of the other process
        with pytest.raises(StoreError, match="another process"):
            next(start(vectors, tmp_path))
        assert (folder / "scenario.toml").exists()


def test_a_branch_that_fails_leaves_its_parent_alone(vectors, tmp_path, monkeypatch):
    list(start(vectors, tmp_path))
    parent = Run.open(folder_of(vectors, tmp_path))
    forked = Branch.of(parent, 1, {"trainers.lab.publish": 1})
    with monkeypatch.context() as patch, pytest.raises(EcosystemError, match="no"):
        patch.setattr(Store, "branch_off", lambda *arguments: (_ for _ in ()).throw(EcosystemError("no")))
        next(start(forked.scenario, tmp_path, branch=forked))
    assert not forked.folder(tmp_path).exists() and not forked.folder(tmp_path).parent.exists()
    assert parent.verify() and parent.last_step == 2
    with monkeypatch.context() as patch, pytest.raises(EcosystemError, match="no"):
        fail(patch, EcosystemError("no"), step=2)
        next(start(forked.scenario, tmp_path, branch=forked))
    assert Run.open(forked.folder(tmp_path)).last_step == 1  # the parent's steps are its own
    assert list(start(forked.scenario, tmp_path, branch=forked)) == [2]
