"""Check the files that runs leave in a store, which anyone may have written."""

from typing import Any

from clepdg.hashing import inside


def is_run_file(content: Any) -> bool:
    """Return whether the content of a document is that of a run's file.

    Its names and types are those that its readers need; a key can't lead out of the store.
    """
    if not isinstance(content, dict) or not isinstance(content.get("arguments"), dict):
        return False
    return _is_config(content.get("config")) and _is_stages(content.get("stages"))


def _is_config(config: Any) -> bool:
    if not isinstance(config, dict):
        return False
    backbone, corpora = config.get("backbone", {}), config.get("corpora", [])
    return (
        isinstance(config.get("preset", ""), str)
        and isinstance(backbone, dict)
        and isinstance(backbone.get("name", ""), str)
        and isinstance(corpora, list)
        and all(isinstance(corpus, str) for corpus in corpora)
    )


def _is_stages(stages: Any) -> bool:
    return isinstance(stages, dict) and all(isinstance(facts, dict) and _is_key(facts) for facts in stages.values())


def _is_key(facts: dict[str, Any]) -> bool:
    key = facts.get("key")
    return key in (None, "") or (inside(key) and "/" not in key)
