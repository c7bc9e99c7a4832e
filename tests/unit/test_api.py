"""Protects the public API: its examples run, and it needs neither Prefect nor MLflow."""

import doctest
import inspect
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import soundfile

import clepdg
from clepdg import api
from clepdg.corpora.cards import load_card
from clepdg.errors import ConfigError, CorpusError

pytestmark = pytest.mark.usefixtures("few_separation_steps")


@pytest.mark.parametrize("name", [n for n in clepdg.__all__ if n not in ("load_classifier", "results")])
def test_the_example_of_every_function_runs(name):
    tests = doctest.DocTestFinder().find(getattr(api, name), name, globs=vars(api).copy())
    assert tests[0].examples
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(tests[0], out=report.append)
    assert result.failed == 0, "".join(report)


def test_importing_loads_neither_prefect_nor_mlflow_nor_torch():
    code = (
        "import sys, clepdg; clepdg.load_clap; print(sorted({'prefect','mlflow','torch','pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
    assert all(inspect.getdoc(getattr(clepdg, name)) for name in clepdg.__all__)
    assert {*clepdg.__all__} <= {*dir(clepdg)} and not hasattr(clepdg, "fit")


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("speech")
    return clepdg.load_corpus("synthetic-1", folder=folder, utterances=20)


@pytest.fixture(scope="module")
def model(speech):
    few = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "from_scratch": True, "train_text_encoder": True}
    start = clepdg.load_clap("micro")
    before = start.digest()
    clep = clepdg.fit_clep(start, speech, **few)
    assert start.digest() == before != clep.digest()
    contexts = clepdg.learn_contexts(clep, ("angry", "happy", "neutral", "sad"), contexts=2, epochs=2)
    return clepdg.fit_classifier(clep, contexts, speech, steps=10)


def test_files_arrays_and_utterances_give_the_same_predictions(model, speech, tmp_path):
    from clepdg.dataset.shards import waveforms_of

    test = speech[speech.split == "test"]
    by_row = model.predict(test)
    assert by_row.index.tolist() == test.utterance_id.tolist()
    waveforms = list(waveforms_of(test))
    for n, (waveform, rate) in enumerate(waveforms):
        soundfile.write(tmp_path / f"{n}.flac", waveform, rate, subtype="PCM_16")
    files = [tmp_path / f"{n}.flac" for n in range(len(waveforms))]
    by_array, by_file = model.predict(waveforms), model.predict(files)
    assert by_file.index.tolist() == [str(path) for path in files]
    labels = ["angry", "happy", "neutral", "sad"]
    np.testing.assert_allclose(by_array[labels], by_row[labels], atol=1e-6)
    np.testing.assert_allclose(by_file[labels], by_row[labels], atol=1e-4)
    np.testing.assert_allclose(by_row[labels].sum(axis=1), 1)
    assert model.predict(files[0]).shape == (1, 5)
    assert list(model.predict([]).columns) == ["emotion", *labels] and model.predict([]).empty


@pytest.mark.parametrize(
    ("audio", "says"),
    [
        (np.zeros(16000), "(?s)float.*(array, rate)"),
        ([np.zeros(16000)], "(?s)ndarray.*(array, rate)"),
        ([(np.zeros(16000),)], "(?s)tuple.*(array, rate)"),
        (("a.wav", "b.wav"), "(?s)tuple.*a list"),
        (None, "(?s)NoneType.*a path"),
        (pd.DataFrame({"path": ["a.wav"]}), "(?s)got: path.*utterance_id, folder, tar.*list"),
    ],
)
def test_what_is_no_audio_is_refused(model, audio, says):
    with pytest.raises(ConfigError, match=says):
        model.predict(audio)


def test_a_classifier_is_shown_in_one_line(model):
    assert repr(model) == "EmotionClassifier(Micro, labels=['angry', 'happy', 'neutral', 'sad'])"


def test_a_saved_classifier_predicts_the_same(model, speech, tmp_path):
    model.save(tmp_path)
    pd.testing.assert_frame_equal(clepdg.load_classifier(tmp_path).predict(speech), model.predict(speech))


def test_a_corpus_is_read_again_from_its_folder(speech, tmp_path, monkeypatch):
    folder = next(iter(speech.folder)).rsplit("/", 2)[0]
    monkeypatch.setattr("clepdg.dataset.index.build_index", None)  # would be called to make it anew
    pd.testing.assert_frame_equal(clepdg.load_corpus("synthetic-1", folder=folder, utterances=20), speech)


def test_a_kept_copy_is_checked_again(tmp_path):
    card, noise = load_card("emodb"), np.random.default_rng(0).normal(0, 0.1, 16000)
    (tmp_path / "wav").mkdir()
    with zipfile.ZipFile(tmp_path / "part.zip", "w") as archive:
        for n, speaker in enumerate(["03", card.split.validation[0], card.split.test[0]]):
            soundfile.write(tmp_path / "wav" / f"{speaker}a01Fa.wav", noise * (n + 1) / 3, 16000)
            archive.write(tmp_path / "wav" / f"{speaker}a01Fa.wav", f"wav/{speaker}a01Fa.wav")

    def refusal(folder: str) -> CorpusError:
        with pytest.raises(CorpusError, match="emodb differs from its card") as caught:
            clepdg.load_corpus("emodb", tmp_path / "part.zip", folder=tmp_path / folder)
        return caught.value

    first, again = [
        clepdg.load_corpus("emodb", tmp_path / "part.zip", folder=tmp_path / "kept", allow_partial=True)
        for _ in range(2)
    ]
    pd.testing.assert_frame_equal(first, again)
    assert len(first) == 3 and str(refusal("kept")) == str(refusal("fresh"))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: clepdg.load_corpus("emodb", "none.zip", nonsense=3), "(?s)no such setting.*nonsense.*allow_partial"),
        (lambda: clepdg.load_corpus("synthetic-1", nonsense=3), "(?s)no such setting.*synthetic.utterances"),
        (lambda: clepdg.learn_contexts(None, ["angry", "joyful"]), "(?s)canonical emotions.*joyful.*contemptuous"),
        (lambda: clepdg.learn_contexts(None, "angry"), "(?s)a list of canonical emotions.*contemptuous"),
        (lambda: clepdg.learn_contexts(None, []), "a list of canonical emotions"),
        (lambda: clepdg.load_clap("micro-context"), "(?s)by its name here.*clep-dg run"),
        (lambda: clepdg.load_clap("laion:630k-audioset-best"), "(?s)by its name here.*import-laion"),
        (lambda: clepdg.fit_classifier(None, None, None, centring="nope"), "(?s)wrong type or value.*nope"),
        (lambda: clepdg.fit_classifier(None, None, None, label_set="5"), "(?s)out of range.*one of 4, 6"),
    ],
)
def test_a_wrong_argument_is_refused_before_any_work(call, says):
    with pytest.raises(ConfigError, match=says):
        call()


def test_results_without_a_run_say_so(tmp_path):
    with pytest.raises(ConfigError, match="no evaluated run"):
        clepdg.results("demo", store=tmp_path)


def test_a_name_is_asked_of_the_registry_that_is_installed(model, monkeypatch):
    class Registry:
        def load(self):
            return lambda version, preset, emotions: {("champion", "demo"): (model.clap, model.head)}[version, preset]

    monkeypatch.setattr(api, "entry_points", lambda group: [Registry()] if group == "clepdg.registry" else [])
    assert clepdg.load_classifier(preset="demo").head is model.head
    monkeypatch.setattr(api, "entry_points", lambda group: [])
    with pytest.raises(ConfigError, match="no such folder and no such registered classifier"):
        clepdg.load_classifier("champion")


def test_a_name_that_is_neither_a_folder_nor_registered_says_so(model, tmp_path, monkeypatch):
    class Registry:
        def load(self):
            return self.answer

        def answer(self, version, preset, emotions):
            if version != "1":
                raise ConfigError("There is no such version.")
            return model.clap, model.head

    monkeypatch.setattr(api, "entry_points", lambda group: [Registry()])
    assert clepdg.load_classifier(1, preset="demo").head is model.head
    with pytest.raises(ConfigError, match=r"^There is no such version"):
        clepdg.load_classifier(2)
    with pytest.raises(ConfigError, match="(?s)no such folder and.*nosaved.*EmotionClassifier.save.*no such version"):
        clepdg.load_classifier("nosaved")
    with pytest.raises(ConfigError, match="no such folder and"):
        clepdg.load_classifier(tmp_path / "none")
    with pytest.raises(ConfigError, match="no classifier in this folder"):
        clepdg.load_classifier(tmp_path)
    with pytest.raises(ConfigError, match="A folder has no other emotions"):
        clepdg.load_classifier(tmp_path, emotions=["bored", "angry"])
