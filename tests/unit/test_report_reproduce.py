"""How to repeat a run: the section of the report."""

import json

from clepdg.report.sections.reproduce import END, RUN, fill_run


def test_a_run_fills_in_its_own_copy_of_the_page():
    page = f"<p>before</p>{RUN}{{}}{END}<script>let other</script>"
    facts = {"command": "clep-dg run --source tess='</script><b>'", "stages": {"clep": {"reused": 2, "computed": 0}}}
    filled = fill_run(page, facts)
    content = filled.split(RUN)[1].split(END)[0]
    assert json.loads(content) == facts
    assert filled.startswith("<p>before</p>") and filled.endswith("</script><script>let other</script>")
    assert fill_run(filled, {}) == page  # a later run replaces it
    assert fill_run("<p>a page without it</p>", facts) == "<p>a page without it</p>"
