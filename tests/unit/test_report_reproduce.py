"""How to repeat a run: the section of the report."""

import json
import shlex
import subprocess

from clepdg.report.sections.reproduce import END, RUN, fill_run, in_lines, record_facts, reproduce
from clepdg.store.record import Record


def test_a_run_fills_in_its_own_copy_of_the_page():
    page = f"<p>before</p>{RUN}{{}}{END}<script>let other</script>"
    facts = {"command": "clep-dg run --source tess='</script><b>'", "stages": {"clep": {"reused": 2, "computed": 0}}}
    filled = fill_run(page, facts)
    content = filled.split(RUN)[1].split(END)[0]
    assert json.loads(content) == facts
    assert filled.startswith("<p>before</p>") and filled.endswith("</script><script>let other</script>")
    assert fill_run(filled, {}) == page  # a later run replaces it
    assert fill_run("<p>a page without it</p>", facts) == "<p>a page without it</p>"


SETTINGS = {"clep.epochs": ["7", "3"], "clep_seeds": ["0"]}


def test_the_section_shows_what_differs_first_and_has_the_element_that_a_run_fills_in():
    section = reproduce("clep-dg run --preset demo --set 'x=<y>'", SETTINGS, {"evaluate/a": "0123456789abcdef"})
    assert "clep-dg run --preset demo --set &#39;x=&lt;y&gt;&#39;</code>" in section.html
    assert section.html.index("clep.epochs") < section.html.index("All 2 settings") < section.html.index("clep_seeds")
    assert "0123456789ab<" in section.html
    assert section.html.count(f"{RUN}{{}}{END}") == 1
    assert '"run": "r1"' in fill_run(str(section.html), {"run": "r1"})


def test_corpora_that_are_not_whole_are_allowed_by_the_command():
    section = reproduce("clep-dg run", {}, {}, partial=["tess"])
    assert "clep-dg run --allow-partial</code>" in section.html and "tess is not the whole corpus" in section.html


def test_what_outputs_took_is_summed_by_stage():
    facts = {"version": 1, "config": {}, "inputs": {}, "digests": {"content": "d" * 64}, "figures": {}, "files": {}}
    records = [
        Record(
            stage="clep", name="a", key="k" * 64, seconds=2.0, cpu_seconds=1.5, device="cuda:0", peak_bytes=5, **facts
        ),
        Record(stage="clep", name="b", key="k" * 64, seconds=1.0, versions={"torch": "2"}, **facts),
        Record(stage="acpt", name="c", key="k" * 64, seconds=1.0, versions={"torch": "3"}, **facts),
    ]
    found = record_facts(records)
    assert found["costs"]["clep"] == {
        "outputs": 2, "seconds": 3.0, "cpu_seconds": 1.5, "measured": 1, "devices": ["cuda:0"], "peak_bytes": 5
    }  # fmt: skip
    assert found["costs"]["acpt"]["measured"] == 0 and found["libraries"] == {"torch": ["2", "3"]}
    assert found["outputs"][1] == ["clep/b", "k" * 12, "d" * 12, 1.0, None, ""]


def test_a_long_command_has_an_option_in_each_line_and_a_shell_reads_it_as_before():
    words = ["clep-dg", "run", "--source", "tess=/my corpora/tess", "--set", 'text.content_templates=["a", "b --c"]']
    command = shlex.join([*words, "--set", "x=" + 90 * "y"])
    shown = in_lines(command)
    assert [line.split()[0] for line in shown.splitlines()] == ["clep-dg", "--source", "--set", "--set"]
    said = subprocess.run(["sh", "-c", f"printf '%s\\n' {shown}"], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == shlex.split(command)
    assert in_lines("clep-dg run --preset demo") == "clep-dg run --preset demo"


def test_a_long_value_is_cut_in_the_table_and_whole_below_it_and_on_hover():
    section = reproduce("clep-dg run", {"rows": ["a," * 99 + "z", "none"]}, {})
    whole = "a," * 99 + "z"
    assert f'<td title="{whole}">{("a," * 50)[:99]}…</td><td>none</td>' in section.html
    assert f"<td>{whole}</td>" in section.html  # of all settings
