"""What the Prefect page of a run says first: where its report and its MLflow runs are, then its results."""

from collections.abc import Mapping
from typing import Any

from clepdg.store import Store
from tasks.registry import Registry
from tasks.tracking import front_page


def results_page(stages: Mapping[str, Mapping[str, Any]], store: Store, registry: Registry) -> str:
    """Return the page as markdown.

    Args:
        stages: node id -> what became of it, in order.
    """
    lines = [_mlflow(registry)]
    report = stages.get("report/report", {}).get("key")
    if report:
        folder = store.local("report", report)
        page = registry.page("report", report, "report.html")
        lines.insert(0, f"Report: {f'[report.html]({page}), ' if page else ''}`{folder / 'report.html'}`")
        return "\n\n".join([*lines, (folder / "results.md").read_text()])
    made = {node_id: facts["key"] for node_id, facts in stages.items() if facts.get("key")}
    if made:
        last = list(made)[-1].partition("/")[0]
        lines.append(f"No report: this run ends with {last}. Its outputs:")
        lines.append("\n".join(_output(n, key, store, registry) for n, key in made.items() if n.startswith(f"{last}/")))
    return "\n\n".join(lines)


def _mlflow(registry: Registry) -> str:
    if not registry.url.startswith("http"):
        run = f", run `{registry.parent}`" if registry.parent else ""
        return f"MLflow: `{registry.url}`{run}"
    own = registry.page()
    if own:
        return f"MLflow: [this run]({own})"
    why = "it did not answer" if registry.notes() else "this run computed nothing and has no page of its own"
    return f"MLflow: [{registry.url}]({front_page(registry.url)}); {why}"


def _output(node_id: str, key: str, store: Store, registry: Registry) -> str:
    stage, _, name = node_id.partition("/")
    page = registry.page(stage, key)
    return f"- {f'[{stage} {name}]({page})' if page else f'{stage} {name}'}: `{store.local(stage, key)}`"
