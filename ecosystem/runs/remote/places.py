"""Places of runs: folders, or URLs of object stores whose runs are read through a folder of this machine."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from ecosystem.errors import EcosystemError, StoreError
from ecosystem.input_files import is_url
from ecosystem.placement.parts import store_errors
from ecosystem.runs.records import record_files
from ecosystem.runs.remote.mirror import Mirror, scratch_folder
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario

_READ_ONLY = ("zip", "tar", "libarchive", "http", "https", "data", "git", "github", "gist", "reference")
_STUDY_TABLES = ("metrics", "state")  # those that studies read


def require_writable(url: str) -> None:
    """Raise EcosystemError for a URL below which no run can be written, or that means another place than it says."""
    protocol, _, rest = url.partition("://")
    if protocol.split("::")[0] in _READ_ONLY:
        raise EcosystemError(
            f"--out {url}: runs cannot be written there as folders; give a folder, or the URL of an object store, such "
            "as s3://bucket/runs."
        )
    if protocol in ("file", "local") and rest and not rest.startswith(("/", "~")):
        raise EcosystemError(
            f"--out {url}: {rest.split('/')[0]} is the name of a machine in this URL; give {protocol}:///{rest}, or "
            "the path of the folder."
        )


def require_lasting(url: str) -> None:
    """Raise EcosystemError for a URL where no run can be written, or is lost with this process."""
    if url.startswith("memory://"):
        raise EcosystemError(
            f"--out {url}: what is stored there is lost when the command ends; give a folder, or the URL of an object "
            "store, such as s3://bucket/runs."
        )
    require_writable(url)


def place_of(scenario: Scenario, out: str) -> str:
    """Return the folder or URL of a scenario's run, below ``out``."""
    if is_url(out):
        return f"{out.rstrip('/')}/{folder_of(scenario, '').as_posix()}"
    return str(folder_of(scenario, out))


def last_step(place: str) -> int:
    """Return the last committed step of a run (-1: none) from the names of its records, without reading them."""
    if is_url(place):
        mirror = Mirror.of_run(place)
        names = mirror.records(mirror.local(place))
    else:
        names = [path.name for path in record_files(Path(place))]
    return max((int(name.removesuffix(".json")) for name in names), default=-1)


def open_run(place: str) -> Run:
    """Open a run for reading; from an object store, fetch its metrics but not its models.

    Raises StoreError if there is no run at ``place``.
    """
    return Run.open(_fetched(place, _STUDY_TABLES) if is_url(place) else place)


def local_folder(place: str | Path, weights: Container[int] = ()) -> Path:
    """Return the folder of a run; for one in an object store, that of its mirror, with everything but other weights.

    Files that are there already are compared with their recorded hashes, and fetched again if they differ. Raises
    StoreError if there is no run at a URL.
    """
    if isinstance(place, str) and is_url(place):
        return _fetched(place, None, weights)
    return Path(place)


def _fetched(place: str, tables: tuple[str, ...] | None, weights: Container[int] = ()) -> Path:
    mirror = Mirror.of_run(place)
    folder = mirror.local(place)
    mirror.fetch(folder, tables=tables, weights=weights)
    if not (folder / "scenario.toml").is_file():
        raise StoreError(f"{place}: there is no run at this URL.")
    return folder


def with_store_paths(message: str, out: str) -> str:
    """Replace the path of the scratch folder in a message by its URL; if ``out`` is a folder, change nothing."""
    url = out.rstrip("/")
    return message.replace(str(scratch_folder(url)), url) if is_url(out) else message


@contextmanager
def urls_in_errors(out: str | Path) -> Iterator[None]:
    """Name the URL ``out``, not the folder that mirrors it, in errors."""
    try:
        yield
    except EcosystemError as error:
        if isinstance(out, str):
            error.args = tuple(with_store_paths(one, out) if isinstance(one, str) else one for one in error.args)
        raise


def upload_report(folder: Path, url: str) -> None:
    """Upload the report of a run, with its charts, to the URL of the run."""
    url = url.rstrip("/")
    upload(folder, url, "report.html")
    upload(folder / "charts", f"{url}/charts")


def upload(folder: Path, url: str, names: str = "*") -> None:
    """Upload the files of a folder whose names match the pattern ``names`` to a URL."""
    files = [path for path in sorted(folder.rglob(names)) if path.is_file() and not path.name.startswith(".")]
    with store_errors(url):
        Mirror(url).put(files, folder)
