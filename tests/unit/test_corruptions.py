"""Protects the corruptions: SNR, loudness, alignment and bands; the same for every row, others in training."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from clepdg.audio import corruptions, rooms
from clepdg.audio import noise as noises
from clepdg.audio.corruptions import add_noise, augment, corrupt
from clepdg.audio.noise import RATE, active_power
from clepdg.config.conditions import CLEAN, NOISES, ROOMS, SWEEP, Condition, family_weights, parse
from clepdg.config.schema import ShardConfig
from clepdg.dataset import shards
from clepdg.dataset.shard_writer import write_shards
from clepdg.errors import ConfigError
from clepdg.hashing import generator
from clepdg.method.micro_context import in_environment


@pytest.fixture
def speech(tone):
    """Half a second of silence, two seconds of voice, half a second of silence."""
    return np.concatenate([np.zeros(8000, np.float32), tone(2.0, RATE), np.zeros(8000, np.float32)])


@pytest.fixture
def talkers(tone):
    return [tone(1.0, RATE, pitch, seed) for seed, pitch in enumerate((90, 110, 130, 170, 210, 240, 260))]


def power(waveform):
    return float(np.mean(np.square(waveform, dtype=np.float64)))


@pytest.mark.parametrize("name", SWEEP)
def test_length_and_loudness_are_kept_and_something_changes(speech, talkers, name):
    heard = corrupt(speech, RATE, "c/1", parse(name), talkers)
    assert heard.shape == speech.shape and heard.dtype == np.float32
    assert np.isfinite(heard).all()
    assert power(heard) == pytest.approx(power(speech), rel=1e-4)
    assert np.corrcoef(heard, speech)[0, 1] < 0.9999


@pytest.mark.parametrize("name", ["pink-5dB", "babble-5dB", "room-medium+white-0dB+telephone"])
def test_every_row_hears_the_same_and_every_utterance_something_else(speech, talkers, name):
    first, second = (corrupt(speech, RATE, "c/1", parse(name), talkers) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - corrupt(speech, RATE, "c/2", parse(name), talkers)).max() > 1e-3


def test_snr_is_over_active_speech_not_over_the_silence_around_it(speech):
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    added = add_noise(speech, noise, 10.0) - speech
    voiced = speech[8000:-8000]
    assert 10 * np.log10(power(voiced) / power(added)) == pytest.approx(10.0, abs=0.2)
    assert active_power(speech) == pytest.approx(power(voiced), rel=0.05)


def test_the_snrs_of_a_noise_share_one_realisation(speech):
    quiet, loud = (corrupt(speech, RATE, "c/1", parse(f"white-{snr}dB")) for snr in (20, 0))
    residue = [heard / heard[8000:-8000].std() for heard in (quiet, loud)]
    assert np.corrcoef(residue[0][:8000], residue[1][:8000])[0, 1] > 0.999


def test_colours_fall_as_their_names_say():
    rng = np.random.default_rng(0)
    for colour, slope in (("white", 0.0), ("pink", -1.0), ("brown", -2.0), ("blue", 1.0)):
        spectrum = np.abs(np.fft.rfft(noises.COLOURS[colour](1 << 16, rng))) ** 2
        frequency = np.fft.rfftfreq(1 << 16, 1 / RATE)
        band = (frequency > 100) & (frequency < 7000)
        fitted = np.polyfit(np.log(frequency[band]), np.log(spectrum[band]), 1)[0]
        assert fitted == pytest.approx(slope, abs=0.1), colour


def test_a_room_keeps_the_direct_sound_in_place_and_rings_as_long_as_its_band_says():
    from pyroomacoustics.experimental import measure_rt60

    click = np.zeros(RATE, np.float32)
    click[1000] = 1.0
    for band, (low, high) in rooms.BANDS.items():
        for number in (0, 17):
            response = rooms.impulse_response("test", band, number)
            assert low <= measure_rt60(response, fs=RATE, decay_db=30) <= high
            heard = corruptions.in_room(click, "test", band, number)
            assert len(heard) == len(click)
            assert np.abs(heard[:1000]).max() < 1e-3
            assert np.abs(heard[1000:1003]).max() > 0.2 * np.abs(heard).max()


def test_a_room_is_the_same_in_every_process():
    import hashlib
    import subprocess
    import sys

    code = """
import hashlib
from clepdg.audio.rooms import impulse_response
print(hashlib.sha256(impulse_response("test", "long", 3)).hexdigest())
"""
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert other.stdout.strip() == hashlib.sha256(rooms.impulse_response("test", "long", 3)).hexdigest()


def test_training_and_evaluation_share_neither_noises_nor_rooms():
    assert not set(noises.TRAINING_NOISES) & set(NOISES)
    test, training = (rooms.impulse_response(bank, "short", 0) for bank in ("test", "training"))
    assert len(test) != len(training) or np.abs(test - training).max() > 0.01


@pytest.mark.parametrize(
    ("bank", "hear"),
    [
        ("test", lambda click, n: corrupt(click, RATE, f"c/{n}", parse("room-short"))),
        ("training", lambda click, n: augment(click, RATE, generator("step", n))),
        ("training", lambda click, n: in_environment(click, RATE, "room-short", [], generator("step", n))),
    ],
    ids=["evaluation", "training", "micro-context"],
)
def test_evaluation_is_in_rooms_of_its_bank_and_training_in_rooms_of_the_other(bank, hear, monkeypatch):
    monkeypatch.setattr(rooms, "ROOMS_PER_BAND", 4)  # few, since drawing a room takes time
    monkeypatch.setattr(rooms, "BANDS", {"short": rooms.BANDS["short"]})
    monkeypatch.setattr(corruptions, "add_noise", lambda waveform, noise, snr: waveform)
    click = np.zeros(RATE, np.float32)
    click[0] = 1.0  # in a room it is the room's impulse response
    heard = [wave for n in range(12) if np.count_nonzero(wave := hear(click, n)) > 1]
    assert len(heard) > 3

    def cosines(wave, name):
        responses = [np.resize(np.append(rooms.impulse_response(name, "short", n), click * 0), RATE) for n in range(4)]
        return [wave @ r / np.linalg.norm(wave) / np.linalg.norm(r) for r in responses]

    other = "training" if bank == "test" else "test"
    for wave in heard:
        assert max(cosines(wave, bank)) > 0.999 > max(cosines(wave, other))


def test_only_training_utterances_of_the_sources_babble_as_many_of_each(tmp_path):
    pitches = {}  # corpus -> the pitch in Hz of each utterance, in the order of their ids
    for corpus, lowest, count in (("a", 1000, 12), ("b", 3000, 24)):
        splits = ["train", "validation", "test"] * (count // 3)
        pitches[corpus] = {lowest + 50 * n: split for n, split in enumerate(splits)}
        (tmp_path / corpus).mkdir()
        rows = []
        for pitch, split in pitches[corpus].items():
            wave = 0.1 * np.sin(2 * np.pi * pitch * np.arange(24000) / 24000)
            soundfile.write(tmp_path / f"{corpus}{pitch}.wav", wave, 24000)
            rows.append((f"{corpus}/{pitch}", split, f"{corpus}{pitch}.wav", "A"))
        table = pd.DataFrame(rows, columns=["utterance_id", "split", "path", "raw_label"])
        write_shards(tmp_path / corpus, tmp_path, table, ShardConfig())

    def heard(most):
        voices = shards.babble_voices([tmp_path / corpus for corpus in pitches], most)
        assert {len(voice) for voice in voices} == {RATE}  # a second of each, so that a bin is one Hz
        return [int(np.abs(np.fft.rfft(voice)).argmax()) for voice in voices]

    training = [[pitch for pitch, split in own.items() if split == "train"] for own in pitches.values()]
    assert heard(most=100) == sum(training, [])
    assert heard(most=4) == [own[place] for own in training for place in (0, -1)]  # from one end to the other


def test_a_telephone_passes_its_band_alone(tone):
    spectrum = np.abs(
        np.fft.rfft(corruptions.telephone(np.random.default_rng(0).normal(0, 0.1, 4 * RATE).astype("f4")))
    )
    frequency = np.fft.rfftfreq(4 * RATE, 1 / RATE)
    inside = spectrum[(frequency > 500) & (frequency < 3000)].mean()
    assert spectrum[frequency < 100].mean() < 0.1 * inside
    assert spectrum[frequency > 4200].mean() < 0.1 * inside


@pytest.mark.parametrize("pause", [0, 1, 8], ids=lambda seconds: f"{seconds} s of pauses")
def test_clipping_cuts_a_tenth_of_the_speech_however_long_its_pauses(tone, pause):
    voiced, silence = tone(2.0, RATE), np.zeros(pause * RATE, np.float32)
    cut = corruptions.clip(np.concatenate([silence, voiced, silence]))[len(silence) :][: len(voiced)]
    assert np.mean(np.abs(cut) >= np.abs(cut).max() * 0.9999) == pytest.approx(0.1, abs=0.01)


def test_a_babble_is_made_of_the_recordings_alone(speech, talkers):
    silent = [np.zeros_like(voice) for voice in talkers]
    with_voices, without = (corrupt(speech, RATE, "c/1", parse("babble-0dB"), r) for r in (talkers, silent))
    np.testing.assert_allclose(without, speech, atol=1e-6)
    assert np.abs(with_voices - speech).max() > 0.01
    with pytest.raises(ConfigError, match="needs recordings"):
        corrupt(speech, RATE, "c/1", parse("babble-0dB"))


def test_augmentation_is_a_function_of_its_generator(speech):
    first, second = (augment(speech, RATE, generator("step", 3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == speech.shape
    heard = [augment(speech, RATE, generator("step", step)) for step in range(12)]
    assert all(np.isfinite(h).all() and power(h) == pytest.approx(power(speech), rel=1e-4) for h in heard)
    assert len({h.tobytes() for h in heard}) > 8


def test_silence_and_a_very_short_utterance_stay_finite(talkers):
    for waveform in (np.zeros(1000, np.float32), np.full(100, 0.1, np.float32)):
        for name in SWEEP:
            assert np.isfinite(corrupt(waveform, RATE, "c/1", parse(name), talkers)).all(), name


def test_another_rate_comes_out_at_16_khz(tone):
    assert len(corrupt(tone(1.0, 48000), 48000, "c/1", parse("white-10dB"))) == RATE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clean", Condition(name="clean")),
        ("pink-0dB", Condition(name="pink-0dB", noise="pink", snr=0.0)),
        ("hum--5dB", Condition(name="hum--5dB", noise="hum", snr=-5.0)),
        (
            "room-long+own-15dB+telephone",
            Condition(name="room-long+own-15dB+telephone", room="long", noise="own", snr=15.0, channel="telephone"),
        ),
    ],
)
def test_names_say_conditions(name, expected):
    assert parse(name) == expected


@pytest.mark.parametrize(
    "name", ["", "noise", "white", "white-10", "room-huge", "telephone+room-long", "room-long+", "+clipping"]
)
def test_other_names_are_refused_with_the_valid_ones(name):
    with pytest.raises(ConfigError, match="white-20dB|docs/method.md#conditions lists all"):
        parse(name)


def test_an_snr_that_nobody_can_hear_is_refused():
    with pytest.raises(ConfigError, match="-60 to 60 dB"):
        parse("white-100000dB")


def test_a_curve_is_a_condition_without_its_snr():
    assert {parse(f"pink-{snr}dB").curve for snr in (20, -5)} == {"pink"}
    assert parse("room-short+white-5dB").curve == "room-short+white"


def test_the_families_of_the_sweep_weigh_the_same_however_many_conditions_they_have():
    weights = family_weights(SWEEP)
    total = {}
    for name, weight in weights.items():
        total[parse(name).family] = total.get(parse(name).family, 0) + weight
    assert total == pytest.approx({"noise": 0.25, "rooms": 0.25, "lines": 0.25, "clipping": 0.25})
    assert weights["babble-0dB"] == pytest.approx(0.25 / 20)
    assert weights["room-long"] == pytest.approx(0.25 / 3)
    assert family_weights([CLEAN]) == {CLEAN: 1.0}
    assert parse("room-short+own-5dB+telephone").family == "rooms + noise + lines"


def test_names_of_rooms_are_those_that_have_rooms() -> None:
    assert tuple(rooms.BANDS) == ROOMS
