"""The credit rule, fixed before any result: when ACPT counts as better.

ACPT's UAR minus that of every rival, on the same utterances, averaged over the left-out targets: (i) clean, and (ii)
averaged over the whole sweep of corruptions, within a family (noise, rooms, lines, clipping) and then over families.
Credit needs both above 0 against every rival (an intersection-union test: the largest of the rivals' p counts, which is
never weaker than testing the best rival alone), with Holm's correction over the two at a family-wise error of .05. All
else in the report is descriptive.

The claim is about corpora, so targets are random, and so are CLEP's seeds (clepdg/evaluation/targets.py): a target
counts whole and once, whatever its size and its number of speakers. With fewer than 3 targets, or where something that
the rule needs was not run, the verdict is "not decidable".
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from clepdg.config.conditions import CLEAN, SWEEP
from clepdg.config.rows import MAIN_ROW
from clepdg.evaluation.marks import seed_marks
from clepdg.evaluation.targets import Target, average, left_out

if TYPE_CHECKING:
    import pandas as pd

RIVALS: Final = ("text-none", "text-random", "text-hand-written", "text-noise", "clep-zero-shot-centred")
ALPHA: Final = 0.05  # of both parts together, whatever the tables' confidence
TARGETS: Final = 3  # fewer say nothing about corpora
CLEAN_WORDS, CORRUPTED_WORDS = "clean", "averaged over the sweep of corruptions"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """ACPT's UAR minus a rival's, as a mean over targets.

    Its interval and two-sided p are None where it is not tested.
    """

    rival: str
    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict of the credit rule, with its reason and its differences.

    `says` is "credited", "not credited" or "not decidable".
    """

    says: str
    why: str
    differences: dict[str, list[Difference]]

    def parts(self) -> dict[str, str]:
        """Return part of the rule -> its differences in words, the worst first."""
        return {
            part: "; ".join(_shown(difference) for difference in sorted(differences, key=lambda d: (-_p(d), d.value)))
            for part, differences in self.differences.items()
        }


def _shown(difference: Difference) -> str:
    tested = "not tested"
    if difference.low is not None:
        tested = f"[{difference.low:+.3f}, {difference.high:+.3f}], p {difference.p:.3f}"
    return f"{difference.value:+.3f} against {difference.rival} ({tested})"


def verdict(
    predictions: "pd.DataFrame",
    labels: tuple[str, ...],
    corpora: Sequence[str],
    *,
    sweep: Sequence[str] = SWEEP,
    test_only: Collection[str] = (),
) -> Verdict:
    """Apply the rule to the predictions of all folds.

    Args:
        labels: the label set, in the order of the probabilities.
        corpora: each of them has to be a target once.
        sweep: the corrupted conditions that are averaged over; others that were heard have no part in the rule.
        test_only: rows that are evaluated on a target's test part alone.
    """
    return verdict_on(left_out(predictions, labels, test_only), corpora, sweep=sweep)


def verdict_on(targets: Sequence[Target], corpora: Sequence[str], *, sweep: Sequence[str] = SWEEP) -> Verdict:
    """Apply the rule to left-out targets, as `verdict` does."""
    rows = {row for target in targets for row in target.rows}
    if MAIN_ROW not in rows:
        return Verdict(says="not decidable", why=f"no leave-out fold has method {MAIN_ROW}", differences={})
    heard = {condition for target in targets for condition in target.conditions(MAIN_ROW)}
    corrupted = [name for name in sweep if name in heard]
    whole = len(corrupted) == len(sweep)
    words = CORRUPTED_WORDS if whole else f"averaged over {len(corrupted)} of the sweep's {len(sweep)} corruptions"
    parts = {CLEAN_WORDS: [CLEAN], **({words: corrupted} if corrupted else {})}
    used = [target for target in targets if target.mean(MAIN_ROW, [CLEAN])]
    faults = [f"{target.name} has no class of three utterances" for target in targets if target not in used]
    few = [f"{len(used)} of the {TARGETS} left-out targets that a test needs"] if len(used) < TARGETS else []
    differences = {
        words: [
            difference
            for rival in RIVALS
            if (difference := _difference(used, rival, conditions, tested=not few)) is not None
        ]
        for words, conditions in parts.items()
    }
    differences = {words: found for words, found in differences.items() if found}
    lacking = [name for name in RIVALS if name not in rows]
    not_left = [corpus for corpus in corpora if corpus not in {target.name for target in targets}]
    missing = [f"methods {', '.join(lacking)} were not run"] if lacking else []
    missing += [f"{', '.join(not_left)} was not left out"] if not_left else []
    if unheard := len(sweep) - len(corrupted):
        missing.append(f"{unheard} of {len(sweep)} conditions of the sweep were not heard")
    if missing or few:
        return Verdict(says="not decidable", why="; ".join(missing + few + faults), differences=differences)
    credited = _holm({words: max(map(_p, found)) for words, found in differences.items()}, ALPHA)
    passed = [words for words, holds in credited.items() if holds]
    why = {2: "above every rival in both parts", 1: f"above every rival only {''.join(passed)}"}
    said = [
        why.get(len(passed), "not above every rival in either part"),
        *seed_marks({seed for target in targets for seed in target.seeds}),
        *faults,
    ]
    return Verdict(
        says="credited" if len(passed) == 2 else "not credited", why="; ".join(said), differences=differences
    )


def _p(difference: Difference) -> float:
    """Return the p of "above this rival"; 1 where it is not above."""
    return difference.p if difference.p is not None and difference.value > 0 else 1.0


def _holm(p: dict[str, float], alpha: float) -> dict[str, bool]:
    """Apply Holm's correction: which hypotheses are rejected at alpha."""
    holds, rejected = True, {}
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        holds = holds and p[name] <= alpha / (len(p) - rank)
        rejected[name] = holds
    return rejected


def _difference(targets: Sequence[Target], rival: str, conditions: Sequence[str], *, tested: bool) -> Difference | None:
    """Return the mean difference over targets; None without the rival."""
    found = average(targets, MAIN_ROW, conditions, minus=rival)
    if found is None:
        return None
    if not tested or found.targets < TARGETS:
        return Difference(rival=rival, value=found.value)
    low, high = found.sample.interval(1 - ALPHA)
    return Difference(rival=rival, value=found.value, low=low, high=high, p=found.sample.p())
