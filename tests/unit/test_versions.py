"""Protects the keys from changed code: a changed module needs a raised stage version, or a word that results stay."""

from pathlib import Path

from clepdg_tasks.engine import versions
from clepdg_tasks.engine.versions import PROJECT, RULES, VERSIONS, modules, stages_of


def test_changed_modules_raised_a_version_or_were_acknowledged():
    changed = versions.unacknowledged()
    assert not changed, (
        f"{changed}: raise the versions in tasks/engine/versions.py of the stages whose results change, then run "
        "`make versions`; where results stay the same, run `make versions SAME=1`"
    )


def test_rules_name_what_is_there_and_cover_every_stage():
    assert all((PROJECT / rule).exists() for rule in RULES)
    assert {stage for stages in RULES.values() for stage in stages} == set(VERSIONS)
    assert all(stages_of(module) for module in modules())


def test_the_longest_rule_decides():
    assert stages_of("clepdg/corpora/tess.py") == ("index",)
    assert stages_of("clepdg/corpora/synthetic.py") == ("source",)
    assert stages_of("clepdg/download/check/cards.py") == stages_of("clepdg/store/store.py") == ()
    assert stages_of("flows/clep_dg.py") == ()


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
    recorded["clepdg/report/html.py"] = {**recorded["clepdg/report/html.py"], "digest": "before"}
    monkeypatch.setattr(versions.json, "loads", lambda text: recorded)
    assert versions.unacknowledged() == {"clepdg/report/html.py": ("report",)}
    monkeypatch.setitem(VERSIONS, "report", VERSIONS["report"] + 1)
    assert versions.unacknowledged() == {}
