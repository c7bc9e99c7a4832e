"""How far a stage is, in words: bytes for what brings files, counts for the rest, and the rate."""


def describe(stage: str, name: str, done: int, total: int, seconds: float) -> str:
    """Return "source tess: 12.3 MB of 224.0 MB, 1.5 MB/s" or "index tess: 40 of 2800, 310/s"."""
    rate = f", {_amount(stage, done / seconds)}/s" if seconds > 0 else ""
    whole = f" of {_amount(stage, total)}" if total else ""
    return f"{stage} {name}: {_amount(stage, done)}{whole}{rate}"


def in_bytes(stage: str) -> bool:
    """Tell whether a stage counts bytes."""
    return stage == "source"


def _amount(stage: str, value: float) -> str:
    return f"{value / 1e6:.1f} MB" if in_bytes(stage) else f"{value:.0f}"
