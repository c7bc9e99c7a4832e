"""Protects the keys from changed code: a changed module needs a raised stage version, or a word that results stay."""

from pathlib import Path

from tasks import versions
from tasks.versions import NO_RESULTS, PROJECT, USED_BY, VERSIONS


def test_changed_modules_raised_a_version_or_were_acknowledged():
    changed = versions.unacknowledged()
    assert not changed, (
        f"{changed}: raise the versions in tasks/versions.py of the stages whose results change, then run "
        "`make versions`; where results stay the same, run `make versions SAME=1`"
    )


def test_every_module_of_the_library_is_in_the_table():
    modules = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "clepdg").rglob("*.py")}
    assert modules == {m for m in USED_BY if m.startswith("clepdg/")} | set(NO_RESULTS)
    assert {stage for stages in USED_BY.values() for stage in stages} == set(VERSIONS)


def test_comments_docstrings_and_layout_do_not_count(tmp_path):
    def of(text: str) -> str:
        path: Path = tmp_path / "m.py"
        path.write_text(text)
        return versions.normalised_digest(path)

    first = of('"""Doc."""\n\n\ndef f(x):\n    """Say."""\n    return x + 1\n')
    assert first == of('"""Other."""\ndef f( x ):\n    # why\n    return (x + 1)\n')
    assert first != of('"""Doc."""\n\n\ndef f(x):\n    """Say."""\n    return x + 2\n')


def test_a_changed_module_is_noticed_until_its_stages_are_raised(monkeypatch):
    recorded = versions.current()
    recorded["clepdg/clep.py"] = {**recorded["clepdg/clep.py"], "digest": "before"}
    monkeypatch.setattr(versions.json, "loads", lambda text: recorded)
    assert versions.unacknowledged() == {"clepdg/clep.py": ("clep",)}
    monkeypatch.setitem(VERSIONS, "clep", VERSIONS["clep"] + 1)
    assert versions.unacknowledged() == {}
