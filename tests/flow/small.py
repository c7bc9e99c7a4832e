"""Trainings that end in seconds: what a test is about, it sets itself."""

SMALL = {
    "clep.epochs": 1,
    "clep.steps_per_epoch": 2,
    "clep.batch_size": 8,
    "acpt.contexts": 2,
    "acpt.epochs": 2,
    "acpt.tokens": 1,
    "classifier.steps": 5,
    "evaluate.resamples": 100,
}
