"""Compare pinned model files with the sizes and hashes the hub reports."""

from collections.abc import Iterable
from functools import partial

from clepdg.config.model_pins import Pin, pins
from clepdg.download.check.hub_info import repository_info
from clepdg.download.check.jobs import Checked, Job, compare

WHAT = "model weights"


def jobs() -> list[Job]:
    """Return one job for each pinned repository."""
    return [
        Job(what=WHAT, where=f"{name}@{pin.revision}", ask=partial(_lines, name, pin)) for name, pin in pins().items()
    ]


def _lines(name: str, pin: Pin) -> Iterable[Checked]:
    """Compare a repository's pinned files with the hub's metadata.

    Raises:
        BackboneError: the hub does not answer, or has no such repository, revision or file.
    """
    where = f"{name}@{pin.revision}"
    info, _ = repository_info(name, pin.revision, lambda names: (sorted({*pin.files} & {*names}) or sorted(names))[:1])
    reported = {each.rfilename: (each.size, each.lfs.sha256 if each.lfs else None) for each in info.siblings or ()}
    for file, (size, sha256) in pin.files.items():
        if file not in reported:
            yield Checked(what=WHAT, where=f"{where}/{file}", result="differs: no such file", good=False)
            continue
        known, now = ({"bytes": b, "sha256": s} for b, s in ((size, sha256), reported[file]))
        yield compare(
            WHAT,
            f"{where}/{file}",
            {key: value for key, value in known.items() if value is not None},
            {key: value for key, value in now.items() if value is not None},
            "models.csv",
        )
    if not pin.files:
        yield Checked(what=WHAT, where=where, result="ok (the commit is there)", good=True)
