"""Protects secrets: which addresses hold one, which server gets which, and that no text that leaves shows one."""

import logging
import pickle
import traceback

import pytest

from clepdg.corpora.cards import load_card
from clepdg.download import object_store, source, urls
from clepdg.download.urls import expand, redact
from clepdg.errors import ClepError, ConfigError, SourceError
from clepdg.redaction import clean_error, hide, holds_secret, scrub, scrub_logs
from clepdg_flows.run.prefect_logging import without_secrets
from clepdg_tasks.engine.worker_main import picklable
from tests.unit.servers import Answer, Server

CARD = load_card("emodb")
HUSH = "hush-Zk3vP9qW7x"


@pytest.mark.parametrize(
    "url",
    [
        f"http://me:{HUSH}@host/c.zip",
        f"http://{HUSH}@host/c.zip",
        f"http://me:{HUSH}/x@host/c.zip",
        f"http://me:a@{HUSH}@host/c.zip",
        f"https://${{ME}}:{HUSH}@host/c.zip",
        f"sftp://me:{HUSH}@host/c.zip",
        f"simplecache::http://me:{HUSH}@host/c.zip",
        f"zip://*.wav::simplecache::https://me:{HUSH}@[::1]/c.zip",
        f"https://relay/get?url=http://me:{HUSH}@host/c.zip",
        f"https://relay/get?file=http%3A%2F%2Fme%3A{HUSH}%40host/c.zip",
        f"https://relay/http%3A%2F%2Fme%3A{HUSH}%40host/c.zip",
        *(
            f"https://host/c.zip?{name}={HUSH}"
            for name in ("pass", "pw", "jwt", "code", "%74oken", "%2574oken", "k", "")
        ),
        f"https://host/c.zip?download=1&X-Amz-Signature={HUSH}&b=2",
        f"https://host/c.zip?api_key={HUSH}${{NAME}}",
        f"https://host/c.zip?{HUSH}",
        f"https://host/c.zip#access_token={HUSH}",
        f"https://host/a;jsessionid={HUSH}/c.zip",
        f"simplecache::https://host/c.zip?pw={HUSH}",
    ],
)
def test_a_secret_in_an_address_is_found_and_not_repeated(url: str) -> None:
    assert holds_secret(url)
    assert HUSH not in hide(url) + redact(url) + scrub(f"no answer from '{url}', (or {url})")
    assert HUSH not in str(ClepError(f"No answer from {url}.", got=[url], where=url, do=url, children=[url]))
    with pytest.raises(SourceError, match="may be a secret") as caught:
        source.identify(CARD, url)
    assert HUSH not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://zenodo.org/records/1188976/files/a.zip?download=1",
        "https://host/R&D/a@b.zip?download",
        "https://${ME}:${WORD}@host/c.zip?token=${A}${B}#part",
        "http://host:8080/a@b?version=2&format=zip",
        "http://[::1]:80/c.zip",
        "sftp://me@host/c.zip",
        "s3://bucket/folder",
        "zip://*.wav::https://host/c.zip?token=${A}",
        "/data/what?token=1;pw=2",
        "http://127.0.0.1:5000/#/experiments/1/runs/a?workflowType=machine_learning",
        "postgresql://USER@HOST:PORT/DATABASE",
        "sqlite:////a/b c/mlflow.db",
    ],
)
def test_an_address_without_a_secret_stays_as_it_is(url: str) -> None:
    assert not holds_secret(url)
    assert hide(url) == scrub(url) == url


# --- who gets which variable


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ME", "somebody")
    monkeypatch.setenv("WORD", "a/b@c")
    monkeypatch.setenv("OTHER_WORD", HUSH)
    monkeypatch.setenv("CLEPDG_SECRETS", "https://host = ME WORD, http://host:81/=WORD,s3://lab=WORD")


@pytest.mark.usefixtures("variables")
@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://${ME}:${WORD}@host/c?t=${WORD}", "https://somebody:a%2Fb%40c@host/c?t=a%2Fb%40c"),
        ("https://HOST/?t=${WORD}", "https://HOST/?t=a%2Fb%40c"),
        ("http://host:81?t=${WORD}", "http://host:81?t=a%2Fb%40c"),
        ("simplecache::https://host/c?t=${WORD}", "simplecache::https://host/c?t=a%2Fb%40c"),
        ("s3://lab/${WORD}", "s3://lab/a%2Fb%40c"),
    ],
)
def test_a_variable_is_filled_in_for_the_server_that_may_have_it(url: str, asked: str) -> None:
    assert expand(url) == asked
    assert "a/b@c" not in scrub("a/b@c, a%2fb%40c") and "a%2" not in scrub("a%2fb%40c")


@pytest.mark.usefixtures("variables")
@pytest.mark.parametrize(
    "url",
    [
        "https://host/c?t=${OTHER_WORD}",
        "https://evil/c?t=${WORD}",
        "https://host@evil/c?t=${WORD}",
        "https://host.evil/c?t=${WORD}",
        "https://evil/https://host/c?t=${WORD}",
        "https://${WORD}/c",
        "http://host/c?t=${WORD}",
        "http://host:81/c?t=${ME}",
        "https://host:444/c?t=${WORD}",
        "zip://${WORD}::https://host/c",
        "simplecache::https://evil/c?u=s3://lab/${WORD}",
    ],
)
def test_no_other_server_gets_it(url: str) -> None:
    with pytest.raises(SourceError, match=r"may not have(?s:.*)(\[secrets\]|server's name itself)"):
        expand(url)


@pytest.mark.usefixtures("variables")
def test_a_mirror_may_name_any_and_what_follows_it_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEPDG_MIRRORS", "https://site=https://me:${OTHER_WORD}@host")
    assert expand("https://site/f?t=${WORD}") == f"https://me:{HUSH}@host/f?t=a%2Fb%40c"
    with pytest.raises(SourceError, match="may not have") as caught:
        expand("https://site/f?t=${OTHER_WORD}")
    assert HUSH not in str(caught.value)


@pytest.mark.parametrize("entry", ["https://host", "https://host=", "host=A", "https://host/a=A", "https://me:hunter2@host=A",
                                   "https://host=A-B", "https://${X}=X", "=A"])  # fmt: skip
def test_malformed_secrets_are_one_error(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEPDG_SECRETS", f"https://good=A,{entry}")
    with pytest.raises(ConfigError, match=r"(?s)secrets can't be used.*entry 2.*where: CLEPDG_SECRETS") as caught:
        urls.secrets()
    assert "hunter2" not in str(caught.value)


# --- texts


def test_the_environments_secrets_are_in_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", HUSH + "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://me:{HUSH}2@host:9000")
    monkeypatch.setenv("SOME_API_KEY", f"{HUSH}\n3\"'é")
    monkeypatch.setenv("CLEPDG_TRACKING_URL", f"http://me:{HUSH}/4@host")
    assert scrub(f"port '{HUSH}1' is bad, {HUSH}2@host") == "port '***' is bad, ***@host"
    for text in (f"{HUSH}\n3\"'é", repr({"a": f"{HUSH}\n3\"'é"}), traceback.format_exc()):
        assert HUSH not in scrub(text)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    for name in ("PWD", "GOOGLE_APPLICATION_CREDENTIALS_FILE", "RESTIC_PASSWORD_FILE"):
        monkeypatch.setenv(name, "/work/somewhere")
    assert scrub("false in /work/somewhere") == "false in /work/somewhere"


@pytest.mark.parametrize(
    "text", ["a" * 300_000, "a://b:c" * 50_000, "http://" * 50_000, "?a=&" * 50_000 + "a://", "::" * 99_999]
)
def test_a_long_text_takes_no_long_time(text: str) -> None:
    scrub(text)
    hide(text)


def test_a_back_ends_error_shows_no_value_that_was_filled_in(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setenv("WORD", HUSH)
    monkeypatch.setenv("CLEPDG_SECRETS", f"{server.base}=WORD")
    server.answers = [Answer(status=404)]
    with pytest.raises(SourceError, match="FileNotFoundError") as caught:
        source.identify(CARD, f"simplecache::{server.base.replace('//', '//me:${WORD}@', 1)}c.zip")
    assert HUSH in str(caught.value.__cause__)  # fsspec's own text
    assert HUSH not in str(caught.value) + pickle.dumps(caught.value).decode("latin1")
    with pytest.raises(SourceError) as caught, object_store.translate_errors(CARD, "s3://a/b"):
        raise RuntimeError(f"{HUSH} is no key of https://a.example/?sig=abcdefg")
    assert HUSH not in str(caught.value) and "abcdefg" not in str(caught.value)


def test_a_log_record_shows_none_nor_does_its_traceback(caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(logging, "_logRecordFactory", logging.LogRecord)
    monkeypatch.setattr("sys.excepthook", None)
    monkeypatch.setenv("A_PASSWORD", HUSH)
    scrub_logs()
    log = logging.getLogger("clepdg")
    log.warning("got %s", HUSH)
    try:
        raise ValueError(HUSH)
    except ValueError:
        log.exception("failed: http://me:pw-1@host")
    assert "got ***" in caplog.text and "ValueError: ***" in caplog.text and "http://host" in caplog.text
    assert HUSH not in caplog.text and "pw-1" not in caplog.text


def test_an_error_that_holds_one_is_raised_as_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_PASSWORD", HUSH)
    bug = KeyError(HUSH)
    with pytest.raises(RuntimeError, match=r"KeyError: '\*\*\*'") as caught, without_secrets():
        raise bug
    assert HUSH not in "".join(traceback.format_exception(caught.value))
    assert HUSH not in "".join(traceback.format_exception(picklable(bug)))
    plain = ValueError("plain")
    assert clean_error(plain) is plain
    with pytest.raises(ConfigError), without_secrets():
        raise ConfigError("as it is")
