"""Say which tests take long: `make test` leaves them to `make test-all`, and CI runs those that a change touches.

`python -m tests.tiers FILE ...` prints the long tests of changed files, for pytest -m slow.
"""

import sys
from collections.abc import Iterable

# Prefixes of test ids; the longest one that fits decides. Measured in CPU seconds on 2 cores.
SLOW = (
    "tests/e2e/",
    "tests/flow/test_alerts.py",
    "tests/flow/test_at_once.py",
    "tests/flow/test_bucket.py",
    "tests/flow/test_conditions.py::test_a_fold_that_is_added",
    "tests/flow/test_context_look.py",
    "tests/flow/test_crashes.py",
    "tests/flow/test_demo.py",
    "tests/flow/test_devices.py",
    "tests/flow/test_disk.py",
    "tests/flow/test_dual_context.py",
    "tests/flow/test_fan_out.py",
    "tests/flow/test_faults.py",
    "tests/flow/test_flow.py::test_a_clep_that_is_mixed",
    "tests/flow/test_flow.py::test_a_failed_fold",
    "tests/flow/test_flow.py::test_adding_a_file",
    "tests/flow/test_flow.py::test_an_edited_label_map",
    "tests/flow/test_flow.py::test_an_utterance_that_the_card_withdraws",
    "tests/flow/test_flow.py::test_classifier_steps",
    "tests/flow/test_flow.py::test_compare_and_promote",
    "tests/flow/test_flow.py::test_copies_of_source_audio",
    "tests/flow/test_flow.py::test_what_a_broken_mlflow_missed",
    "tests/flow/test_heads.py",
    "tests/flow/test_kill.py",
    "tests/flow/test_kubernetes.py",
    "tests/flow/test_leakage.py::test_a_poisoned_target",
    "tests/flow/test_leakage.py::test_neither_does_it_reach",
    "tests/flow/test_postgres.py",
    "tests/flow/test_refresh.py",
    "tests/flow/test_results.py",
    "tests/flow/test_secrets.py",
    "tests/flow/test_server_gone.py",
    "tests/flow/test_serving.py",
    "tests/flow/test_services.py",
    "tests/flow/test_stop.py",
    "tests/flow/test_worker.py",
    "tests/unit/test_adding.py",
    "tests/unit/test_clep.py::test_a_killed_training",
    "tests/unit/test_clep.py::test_it_learns_an_easy_task",
    "tests/unit/test_clep_variants.py::test_the_same_seed",
    "tests/unit/test_credit.py::test_without_an_effect",
    "tests/unit/test_dual_training.py::test_what_is_trained_moves_and_the_rest_keeps_its_bytes[augment]",
    "tests/unit/test_environments.py::test_contexts_in_words_rank",
    "tests/unit/test_environments.py::test_it_is_the_same_each_time",
    "tests/unit/test_gpu_script.py",
    "tests/unit/test_intervals.py::test_a_true_null",
    "tests/unit/test_laion.py::test_a_folder_that_can_not_be_written",
    "tests/unit/test_laion.py::test_a_name_fetches",
    "tests/unit/test_laion.py::test_a_tokenizer_is_needed",
    "tests/unit/test_laion.py::test_another_architecture",
    "tests/unit/test_laion.py::test_embeddings_are_laion_claps_own",
    "tests/unit/test_laion.py::test_the_command_says",
    "tests/unit/test_laion.py::test_the_folder_is_transformers_own",
    "tests/unit/test_quality.py::test_corpora_indexed_side_by_side",
    "tests/unit/test_ranks.py",
    "tests/unit/test_remote_store.py",
    "tests/unit/test_trees.py::test_meld_clips_that_are_cut_too_long",
    "tests/unit/test_upstream.py::test_what_can_t_be_asked_is_a_note[answer0",
    "tests/unit/test_wheel.py::test_it_runs",
    "tests/unit/test_wheel.py::test_its_deployments",
)
QUICK = (  # of these, what `make test` runs
    "tests/flow/test_dual_context.py::test_each_fold",
    "tests/flow/test_dual_context.py::test_up_to_the_backbone",
    "tests/flow/test_leakage.py::test_a_poisoned_target_changes_no_byte_of_what_its_fold_learns[copies",
    "tests/flow/test_leakage.py::test_a_poisoned_target_changes_no_byte_of_what_its_fold_learns[poison_audio-",
    "tests/unit/test_clep.py::test_a_killed_training_goes_on_bit_for_bit[1-whole]",
    "tests/unit/test_clep_variants.py::test_the_same_seed_gives_the_same_bytes_also_after_a_kill[plain]",
    "tests/unit/test_intervals.py::test_a_true_null_is_rejected_at_most_six_times_in_a_hundred_and_a_uar_is_covered[sizes0-False-0.03-3",
    "tests/unit/test_remote_store.py::test_what_one_machine_computed_the_other_reuses",
    "tests/unit/test_remote_store.py::test_a_late_writer_drops_its_work",
)
TOUCHED = {  # a changed file below this -> the long tests that hold it
    "clepdg/download/": ("tests/unit/test_adding.py", "tests/unit/test_upstream.py", "tests/flow/test_refresh.py",
                         "tests/flow/test_secrets.py", "tests/rehearsal"),
    "clepdg/redaction.py": ("tests/flow/test_secrets.py", "tests/flow/test_bucket.py"),
    "clepdg/dataset/": ("tests/unit/test_quality.py", "tests/unit/test_trees.py", "tests/flow/test_kill.py",
                        "tests/flow/test_leakage.py"),
    "clepdg/corpora/": ("tests/unit/test_adding.py", "tests/unit/test_trees.py", "tests/flow/test_demo.py",
                        "tests/e2e"),
    "clepdg/method/": ("tests/unit/test_clep.py", "tests/unit/test_clep_variants.py", "tests/unit/test_environments.py",
                       "tests/unit/test_dual_training.py", "tests/unit/test_ranks.py",
                       "tests/flow/test_dual_context.py",
                       "tests/flow/test_heads.py", "tests/flow/test_leakage.py", "tests/e2e"),
    "clepdg/models/": ("tests/unit/test_laion.py", "tests/e2e"),
    "clepdg/evaluation/": ("tests/unit/test_credit.py", "tests/unit/test_intervals.py", "tests/flow/test_conditions.py",
                           "tests/flow/test_results.py", "tests/flow/test_context_look.py"),
    "clepdg/report/": ("tests/flow/test_results.py",),
    "clepdg/store/": ("tests/unit/test_remote_store.py", "tests/unit/test_maintenance.py", "tests/flow/test_faults.py",
                      "tests/flow/test_kill.py", "tests/flow/test_bucket.py"),
    "clepdg/training/": ("tests/unit/test_gpu_script.py", "tests/unit/test_ranks.py", "tests/unit/test_clep.py",
                         "tests/flow/test_faults.py", "tests/flow/test_kill.py"),
    "tests/gpu/": ("tests/unit/test_gpu_script.py",),
    "tasks/admin/": ("tests/unit/test_maintenance.py", "tests/flow/test_alerts.py", "tests/flow/test_crashes.py",
                     "tests/flow/test_postgres.py", "tests/flow/test_server_gone.py", "tests/flow/test_services.py",
                     "tests/flow/test_worker.py"),
    "tasks/engine/": ("tests/unit/test_ranks.py", "tests/flow/test_faults.py", "tests/flow/test_flow.py",
                      "tests/flow/test_kill.py", "tests/flow/test_devices.py"),
    "tasks/host/": ("tests/unit/test_laion.py", "tests/flow/test_services.py", "tests/flow/test_disk.py"),
    "tasks/stages/": ("tests/flow/test_faults.py", "tests/flow/test_flow.py", "tests/flow/test_leakage.py"),
    "tasks/tracking/": ("tests/flow/test_serving.py", "tests/flow/test_at_once.py", "tests/flow/test_flow.py",
                        "tests/flow/test_bucket.py"),
    "deploy/": ("tests/flow/test_kubernetes.py",),
    "data_manifests/": ("tests/unit/test_wheel.py",),
    "pyproject.toml": ("tests/unit/test_wheel.py",),
    "prefect.yaml": ("tests/unit/test_wheel.py", "tests/flow/test_services.py", "tests/flow/test_kubernetes.py"),
    "flows/cli/import_laion.py": ("tests/unit/test_laion.py",),
    "flows/": ("tests/flow/test_fan_out.py", "tests/flow/test_flow.py", "tests/flow/test_refresh.py",
               "tests/flow/test_bucket.py", "tests/flow/test_stop.py", "tests/flow/test_server_gone.py"),
}  # fmt: skip


def is_slow(test_id: str) -> bool:
    """Return whether a test is left to `make test-all`."""

    def longest(prefixes: Iterable[str]) -> int:
        return max((len(prefix) for prefix in prefixes if test_id.startswith(prefix)), default=0)

    return longest(SLOW) > longest(QUICK)


def touched(files: Iterable[str]) -> list[str]:
    """Return the paths of the long tests that hold changed files, sorted."""
    files = list(files)
    held = (tests for folder, tests in TOUCHED.items() if any(file.startswith(folder) for file in files))
    changed = {file for file in files if file.startswith("tests/") and file.rpartition("/")[2].startswith("test_")}
    return sorted({path for paths in held for path in paths} | changed)


if __name__ == "__main__":
    print("\n".join(touched(sys.argv[1:])))
