"""A judge over HTTP: a small server on this machine plays it, well and badly."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import evomerge
from evomerge.candidate import Objective
from evomerge.errors import InfrastructureError, InputError, SearchFileError
from evomerge.scoring import Measure, estimate
from evomerge.scoring.metrics import _llm_judge as llm_judge
from evomerge.workers._runner import failure_of
from tests.clock import BACKSTOP
from tests.metrics.test_search import SEARCH
from tests.pico import make_model


def completion(content):
    return json.dumps({"choices": [{"message": {"content": content}}]})


class Server:
    """Answers with `say(request number, question)`: (status, body); remembers what it was asked."""

    def __init__(self):
        self.asked, self.say = [], lambda number, question: (200, completion('{"score": 7}'))
        server, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.asked.append((self.path, dict(self.headers), body))
                    number = len(server.asked)
                status, text = server.say(number, body["messages"][0]["content"])
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(llm_judge, "FIRST_WAIT", 0.001)
    server = Server()
    yield server
    server.close()


@pytest.fixture
def measure(server, tmp_path):
    (tmp_path / "ask.txt").write_text("one and\ntwo and\nthree and\n")
    shared = {"url": server.url, "model": "judge-1", "prompts": str(tmp_path / "ask.txt"), "rubric": "Short is good."}
    shared |= {"scale": [1, 10], "key_env": None, "timeout": 5.0, "retries": 2, "max_tokens": 4, "until": []}
    return lambda **changes: Measure("judge", "j", {**shared, **changes})


def test_each_answer_is_judged_by_the_rubric_and_the_mean_is_the_score(answerer, server, measure):
    server.say = lambda number, question: (200, completion(f'Sure: {{"score": {3 if "one and" in question else 9}}}'))
    asked = answerer(measure())
    rows = asked.answers("j", ["0", "1", "2"])
    assert [row.value for row in rows] == [3, 9, 9]
    score = estimate(rows, Objective("j", "j", "verdict", kind="judge"))
    assert score.value == 7
    assert score.stderr == pytest.approx(2.0)
    written = [answer.text for answer in asked.queries.write("j", ["one and", "two and", "three and"], 4)]
    for path, _, body in server.asked:
        assert path == "/v1/chat/completions"
        assert (body["model"], body["temperature"]) == ("judge-1", 0)
        assert "Short is good." in body["messages"][0]["content"]
        assert any(text in body["messages"][0]["content"] for text in written)


def test_the_key_comes_from_the_environment_and_is_never_kept(answerer, server, measure, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "very-secret")
    rows = answerer(measure(key_env="JUDGE_KEY")).answers("j", ["0"])
    assert server.asked[0][1]["Authorization"] == "Bearer very-secret"
    assert "very-secret" not in repr(rows) + repr(measure(key_env="JUDGE_KEY"))
    scorer = answerer(measure(key_env="JUDGE_KEY"))
    server.say = lambda number, question: (500, "")
    with pytest.raises(InfrastructureError) as caught:
        scorer.answers("j", ["0"])
    assert "very-secret" not in failure_of(caught.value).traceback
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(InputError, match="environment variable JUDGE_KEY is not set"):
        scorer.answers("j", ["0"])


def test_a_busy_judge_is_asked_again(answerer, server, measure):
    server.say = lambda number, question: (503, "busy") if number < 3 else (200, completion('{"score": 5}'))
    assert answerer(measure()).answers("j", ["0"])[0].value == 5
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "body", "words", "attempts"),
    [
        (200, "<html>hello", "the reply is no chat completion: '<html>hello'", 3),
        (200, '{"choices": []}', "the reply is no chat completion", 3),
        (200, completion("I like it"), "expected .*the judge said 'I like it'", 3),
        (200, completion('{"score": "high"}'), "the judge said", 3),
        (200, completion('{"score": NaN}'), "the judge said", 3),
        (200, completion('{"score": 99}'), r"score 99 is not in \[1, 10\]", 3),
        (500, "oops", "HTTP 500 Internal Server Error: oops", 3),
        (401, "no key", "HTTP 401 Unauthorized: no key", 1),
        (302, "", "HTTP 302", 1),
    ],
)
def test_a_bad_reply_is_a_failure_of_the_machine_and_not_of_the_model(
    answerer, server, measure, status, body, words, attempts
):
    server.say = lambda number, question: (status, body)
    with pytest.raises(InfrastructureError, match=words) as caught:
        answerer(measure()).answers("j", ["0"])
    assert server.url in str(caught.value)
    assert len(server.asked) == attempts
    assert failure_of(caught.value).kind == "infrastructure"


def test_no_reply_in_time_and_no_server_at_all(answerer, server, measure):
    release = threading.Event()
    server.say = lambda number, question: (release.wait(BACKSTOP), (200, completion('{"score": 5}')))[1]
    try:
        with pytest.raises(InfrastructureError, match=r"no reply within 0.05 seconds \(1 attempts\)"):
            answerer(measure(timeout=0.05, retries=0)).answers("j", ["0"])
    finally:
        release.set()
    with pytest.raises(InfrastructureError, match="cannot be reached"):
        answerer(measure(url="http://127.0.0.1:9/v1", retries=0)).answers("j", ["0"])


def test_a_search_by_a_judge(server, tmp_path, monkeypatch):
    for seed, name in enumerate(("base", "left", "right")):
        make_model(tmp_path / name, seed=seed, **({"noise_from": tmp_path / "base"} if seed else {}))
    (tmp_path / "ask.txt").write_text("Hello\nWho?\nWhat?\nWhy?\n")
    server.say = lambda number, question: (200, completion(json.dumps({"score": 1 + len(question) % 7})))
    entry = "  - judge: {url: '%s', model: m, prompts: ask.txt, rubric: Be kind., key_env: JUDGE_KEY, max_tokens: 4}"
    (tmp_path / "search.yaml").write_text(SEARCH.format(objectives=entry % server.url))
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(SearchFileError, match="objective 'judge': environment variable JUDGE_KEY is not set"):
        evomerge.search(tmp_path / "search.yaml", out=tmp_path / "run")
    monkeypatch.setenv("JUDGE_KEY", "very-secret")
    run = evomerge.search(tmp_path / "search.yaml", out=tmp_path / "run")
    assert run.trials()["score.judge"].between(1, 10).all()
    assert all(b"very-secret" not in path.read_bytes() for path in (tmp_path / "run").iterdir())
