"""Rewards by a judge behind a URL: scores, tries, deadlines, kept answers and keys."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from realrl.rewards import llm_judge
from realrl.rewards.judge_answers import Answers, digest_of, question_of, reward_in
from realrl.rewards.judge_config import JudgeConfig
from realrl.rewards.llm_judge import Judged, judge_all
from tests.rewards.judge_server import SILENCE, JudgeServer, Reply, judge_server
from tests.rewards.samples import sample_of

TEMPLATE = "Rate the answer to {prompt}, which is {solutions}:\n{response}\n"
KEY = "sk-very-secret-0123"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Waits before tries are short, and no proxy stands before the server."""
    monkeypatch.setattr(llm_judge, "_FIRST_WAIT_S", 0.01)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def template(tmp_path) -> Path:
    path = tmp_path / "judge.txt"
    path.write_text(TEMPLATE)
    return path


@pytest.fixture
def judged(template) -> Callable[..., Judged]:
    """Return what a judge at a server says of responses."""

    def run(server: JudgeServer, *responses: str, folder: Path | None = None, progress=None, **settings):
        given = {"timeout_s": 5.0, **settings}
        config = JudgeConfig(url=server.url, model="strict", prompt=str(template), **given)
        samples = [sample_of(response) for response in responses]
        return judge_all(config, samples, folder, progress or (lambda done, total: None))

    return run


def always(*texts: str) -> Callable[[str, int], Reply]:
    """Return a server's answers to the tries of each question; the last one stays."""
    return lambda question, number: Reply(texts[min(number, len(texts) - 1)])


def test_scores_become_rewards_in_order(judged):
    """Whatever comes first: the answers of early questions come last."""
    scores = {"a": 0, "b": 5, "c": 10, "d": 7.5}

    def reply(question: str, number: int) -> Reply:
        response = question.splitlines()[1]
        return Reply(f"It is so.\n\nScore: {scores[response]}", delay_s=0.2 * (response == "a"))

    said = []
    with judge_server(reply) as server:
        found = judged(server, *"abcd", progress=lambda *numbers: said.append(numbers))
    assert found == Judged([0.0, 0.5, 1.0, 0.75], [False] * 4)
    assert said == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}
    request = server.requests[server.questions.index("Rate the answer to 3+4=, which is 7:\na\n")]
    assert request["model"] == "strict" and request["temperature"] == 0 and server.keys == [None] * 4


def test_responses_that_are_alike_are_one_question(judged):
    with judge_server(always("7")) as server:
        assert judged(server, "a", "b", "a", "a").rewards == [0.7] * 4
    assert len(server.requests) == 2


def test_no_more_questions_are_open_than_allowed(judged):
    reply = Reply("1", delay_s=0.05)
    with judge_server(lambda question, number: reply) as server:
        judged(server, *map(str, range(12)), max_open=3)
    assert server.most_open == 3 and len(server.requests) == 12


@pytest.mark.parametrize(
    "bad",
    [
        Reply(status=500),
        Reply(status=503, body=b"\xff\x00"),
        Reply(status=429),
        Reply(body=b'{"choices": [{"mess'),
        Reply(body=b'{"choices": []}'),
        Reply(body=b'{"choices": [{"message": {"content": null}}]}'),
        Reply(body=b"[1]"),
    ],
    ids=lambda reply: f"{reply.status} {reply.body[:20]!r}",
)
def test_what_fails_is_tried_again(judged, bad):
    with judge_server(lambda question, number: bad if number < 2 else Reply("10")) as server:
        assert judged(server, "a").rewards == [1.0]
    assert len(server.requests) == 3
    with judge_server(lambda question, number: bad) as server:
        assert judged(server, "a", retries=2) == Judged([None], [True])
    assert len(server.requests) == 3


def test_a_question_that_is_refused_is_not_tried_again(judged):
    with judge_server(lambda question, number: Reply(status=400, body=b"too long")) as server:
        assert judged(server, "a") == Judged([None], [True])
    assert len(server.requests) == 1


def test_the_server_says_how_long_to_wait(judged):
    """Up to the deadline of an answer."""
    busy = Reply(status=429, headers={"Retry-After": "1"})
    with judge_server(lambda question, number: Reply("10") if number else busy) as server:
        judged(server, "a")
    assert server.times[1] - server.times[0] >= 0.95
    long = Reply(status=429, headers={"Retry-After": "3600"})
    with judge_server(lambda question, number: Reply("10") if number else long) as server:
        assert judged(server, "a", timeout_s=0.5).rewards == [1.0]
    assert 0.4 < server.times[1] - server.times[0] < 3


@pytest.mark.parametrize(
    "kind", [Reply("10", delay_s=SILENCE), Reply("10", drip=True)], ids=["silent", "drips"]
)
def test_a_server_that_never_ends_its_answer_has_a_deadline(judged, kind, caplog):
    """Also where a byte comes now and then."""
    began = time.monotonic()
    with judge_server(lambda question, number: kind) as server:
        assert judged(server, "a", timeout_s=0.3, retries=1) == Judged([None], [True])
        assert time.monotonic() - began < 5
    assert len(server.requests) == 2
    assert "judge: 1 of 1 questions have no answer" in caplog.text
    assert "no answer within judge.timeout_s=0.3" in caplog.text


def test_no_server_at_all_is_a_failure(judged):
    server = JudgeServer("http://127.0.0.1:9/v1")
    assert judged(server, "a", retries=1) == Judged([None], [True])


def test_a_lost_server_is_not_asked_for_every_response(judged):
    """After as many failures in a row as may be open at once; a server that answers some is not lost."""
    with judge_server(lambda question, number: Reply(status=500)) as server:
        found = judged(server, *map(str, range(50)), max_open=4, retries=0)
    assert found == Judged([None] * 50, [True] * 50) and len(server.requests) < 12
    some = lambda question, number: Reply("1") if "1" in question.splitlines()[1] else Reply(status=500)  # noqa: E731
    with judge_server(some) as server:
        judged(server, "1a", "b", "1c", "d", "1e", "f", max_open=2, retries=0)
    assert len(server.requests) == 6


def test_a_refused_key_ends_the_run_without_showing_it(judged, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with judge_server(always("3")) as server:
        judged(server, "a", api_key_env="JUDGE_KEY")
    assert server.keys == [f"Bearer {KEY}"]
    with judge_server(lambda question, number: Reply(status=401, body=KEY.encode())) as server:
        with pytest.raises(RuntimeError, match="refuses the key with status 401") as failure:
            judged(server, "a", "b", api_key_env="JUDGE_KEY")
    assert KEY not in str(failure.value)
    with judge_server(lambda question, number: Reply(status=500, body=KEY.encode())) as server:
        judged(server, "a", api_key_env="JUDGE_KEY", retries=0)
    assert "status 500: 'KEY'" in caplog.text and KEY not in caplog.text


def test_a_run_that_resumes_asks_nothing_again(judged, tmp_path):
    """Answers without a score are answers, too; failures are asked again. Half a line is ignored."""
    folder = tmp_path / "judge"
    texts = {"a": Reply("8"), "b": Reply("I cannot say"), "c": Reply(status=500)}
    with judge_server(lambda question, number: texts[question.splitlines()[1]]) as server:
        found = judged(server, *"abc", folder=folder, retries=0)
        assert found == Judged([0.8, None, None], [False, False, True])
        with next(folder.iterdir()).open("a") as file:
            file.write('{"question": "12')
        # A process that starts anew reads what is there.
        llm_judge._answers_in.cache_clear()
        assert judged(server, *"abca", folder=folder, retries=0).rewards == [0.8, None, None, 0.8]
        assert sorted(question.splitlines()[1] for question in server.questions) == ["a", "b", "c", "c"]
        llm_judge._answers_in.cache_clear()
        judged(server, "a", folder=folder, arguments={"temperature": 1.0})
        assert len(server.requests) == 5
    assert KEY not in "".join(file.read_text() for file in folder.iterdir())


def test_answers_of_several_processes_are_joined(tmp_path, monkeypatch):
    Answers(tmp_path).add("1", "one")
    monkeypatch.setattr("socket.gethostname", lambda: "other")
    Answers(tmp_path).add("2", "zwei\n\u2028")
    found = Answers(tmp_path)
    assert len(found) == 2 and found.get("1") == "one" and found.get("2") == "zwei\n\u2028"
    assert [len(file.read_text().splitlines()) for file in tmp_path.iterdir()] == [2, 2]


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ("7", 0.7),
        ("Well.\nScore: 7.5", 0.75),
        ("Well.\n\n**Score:** 7\n", 0.7),
        ("**Score: 10**", 1.0),
        ("score:0", 0.0),
        ("+3", 0.3),
        ("Score: 7/10", None),
        ("Score: 11", None),
        ("Score: -1", None),
        ("Score: 7\nThat is all.", None),
        ("I give it a 7", None),
        ("Score: seven", None),
        ("Score: nan", None),
        ("Score: 1e1", None),
        ("Score: 7 8", None),
        ("", None),
        ("***", None),
    ],
)
def test_the_last_line_is_a_score_or_there_is_none(answer, reward):
    config = JudgeConfig(url="http://h/v1", model="m", prompt="p")
    assert reward_in(answer, config) == reward


def test_the_scale_is_the_configs():
    config = JudgeConfig(url="http://h/v1", model="m", prompt="p", lowest=-2, highest=2)
    assert [reward_in(text, config) for text in ("-2", "0", "1", "3")] == [0.0, 0.5, 0.75, None]


def test_places_in_a_response_are_text():
    """A policy that writes `{solutions}` must not see them filled in."""
    assert question_of("{prompt}|{response}|{solutions}|{x}", "p", "{solutions}{prompt}", ["1", "2"]) == (
        "p|{solutions}{prompt}|1\n2|{x}"
    )
    config = JudgeConfig(url="http://h/v1", model="m", prompt="p")
    assert digest_of(config, "a") != digest_of(JudgeConfig(url="http://h/v1", model="n", prompt="p"), "a")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "ftp://h"}, "^url: expected a base URL like http://host:8000/v1, got 'ftp://h'"),
        ({"url": "http://me:secret@h/v1"}, "^url: keys do not belong in it"),
        ({"model": ""}, "^model is needed"),
        ({"prompt": ""}, "^prompt is needed"),
        ({"lowest": 10}, "^highest must be above lowest=10"),
        ({"timeout_s": 0}, "^timeout_s must be above 0"),
        ({"retries": -1}, "^retries must be from 0"),
        ({"max_open": 0}, "^max_open must be from 1"),
        ({"arguments": {"stream": True}}, "^arguments: stream cannot be set here"),
    ],
)
def test_bad_settings_are_named(settings, message):
    given = {"url": "http://h/v1", "model": "m", "prompt": "p", **settings}
    with pytest.raises(ValueError, match=message):
        JudgeConfig(**given)


def test_a_key_in_the_place_of_its_name_is_not_shown():
    with pytest.raises(ValueError, match="^api_key_env: expected the name of an environment") as failure:
        JudgeConfig(url="http://h/v1", model="m", prompt="p", api_key_env=KEY)
    assert KEY not in str(failure.value)
    config = JudgeConfig(url="http://h/v1", model="m", prompt="p", api_key_env="JUDGE_KEY")
    with pytest.raises(ValueError, match="the environment variable JUDGE_KEY is not set"):
        config.key({})
    assert config.key({"JUDGE_KEY": KEY}) == KEY


def test_a_template_must_show_the_prompt_and_the_response(tmp_path):
    file = tmp_path / "judge.txt"
    config = JudgeConfig(url="http://h/v1", model="m", prompt=str(file))
    with pytest.raises(ValueError, match="judge.prompt: .* cannot read the template"):
        config.template()
    file.write_text("{prompt}")
    with pytest.raises(ValueError, match="judge.txt has no {response}; the judge would not see it"):
        config.template()
    file.write_text(TEMPLATE)
    assert config.template() == TEMPLATE
