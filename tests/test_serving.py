"""The page to try edits on: through the library's test client, and in a browser where one is."""

from __future__ import annotations

import html
import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from models_on_disk import FT, corrections_for, model_folder

from pipeline import serving
from pipeline.cli import main
from pipeline.editable import Editable, Guard, Journal, PortError

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
HOW = {"settings": FT}
# A user at work, in a frame: asks, edits, undoes; then what was seen becomes the title.
USER = """<!DOCTYPE html><meta charset=utf-8>
<iframe src="/" style="width:390px;height:900px;border:0"></iframe><script>
const seen = {};
const until = (found) => new Promise((done) => {
  const look = () => (found() ? done() : setTimeout(look, 50));
  look();
});
addEventListener("load", async () => {
  const page = document.querySelector("iframe").contentDocument;
  const at = (id) => page.getElementById(id);
  const quiet = () => !at("message").textContent.startsWith("Working");
  await until(() => at("edits").textContent === "None." && quiet());
  at("prompt").value = PROMPT; at("ask").click();
  await until(() => at("answers").querySelectorAll("td").length === 4);
  seen.asked = at("answers").innerText;
  at("target").value = TARGET;
  at("rephrases").value = "Say it\\nTell me"; at("neighbours").value = "The harbour";
  at("edit").click();
  await until(() => at("result").querySelectorAll("tbody tr").length === 4 && quiet());
  seen.result = at("result").innerText; seen.message = at("message").innerText;
  seen.edits = at("edits").innerText;
  const root = page.documentElement;
  seen.width = [page.defaultView.innerWidth, root.scrollWidth];
  at("edits").querySelector("button").click();
  await until(() => at("edits").textContent === "None." && quiet());
  seen.undone = at("message").innerText;
  at("target").value = ""; at("edit").click();
  await until(() => quiet() && at("message").innerText !== seen.undone);
  seen.mistake = at("message").innerText;
  document.title = JSON.stringify(seen);
});
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("gpt2", tmp_path_factory.mktemp("served") / "model")


@pytest.fixture
def model(folder: Path) -> Editable:
    return Editable.load(folder, guard=Guard(action="off"))


@pytest.fixture
def client(model: Editable) -> Iterator[FlaskClient]:
    with serving.make_app(model, HOW).test_client() as client:
        yield client


def test_ask_edit_undo(client: FlaskClient, model: Editable) -> None:
    prompt, target = corrections_for(model.face)[0]
    assert client.get("/state").json == {"model": model.source, "kind": "causal", "edits": []}
    before = client.post("/ask", json={"prompt": prompt}).json
    assert before
    assert before["before"] == before["after"]
    asked = {
        "prompt": prompt,
        "target": target.strip(),
        "rephrases": "Say it\n\n",
        "neighbours": "Tom",
    }
    made = client.post("/edit", json=asked).json
    assert made
    assert [answer["kind"] for answer in made["answers"]] == ["edit", "rephrase", "neighbour"]
    assert made["right"]
    assert [edit["number"] for edit in made["state"]["edits"]] == [1]
    assert client.post("/ask", json={"prompt": prompt}).json["changed"]  # type: ignore[index]
    assert client.post("/undo", json={"number": 1}).json["edits"] == []  # type: ignore[index]
    assert client.post("/ask", json={"prompt": prompt}).json == before


@pytest.mark.parametrize(
    ("path", "values", "status", "error"),
    [
        ("/edit", {"prompt": "Tom", "target": " "}, 400, "DataError"),
        ("/edit", {"prompt": "Tom", "target": "a", "subject": "Ada"}, 400, "DataError"),
        ("/edit", {"prompt": "Tom " * 80, "target": "a"}, 400, "DataError"),
        ("/ask", {"prompt": 3}, 400, "DataError"),
        ("/undo", {"number": 3}, 400, "JournalError"),
        ("/undo", {"number": "1"}, 400, "DataError"),
        ("/ask", {"prompt": "Tom \ud800"}, 400, "DataError"),
        ("/ask", {"prompt": "Tom " * 80}, 400, "DataError"),
        ("/edit", {"prompt": "Tom", "target": "\udfff"}, 400, "DataError"),
        *(
            ("/edit", {"prompt": "Tom", "target": "a", name: value}, 400, "DataError")
            for name in ("subject", "rephrases", "neighbours")
            for value in (3, True, {"Tom": 1}, ["Tom", 3], "\ud800", [["Tom"]], "Tom " * 80)
        ),
        ("/undo", {"number": 10**400}, 400, "JournalError"),
        ("/undo", {"number": True}, 400, "DataError"),
        ("/ask", ["Tom"], 400, "Bad Request"),
        ("/nothing", {}, 404, "Not Found"),
    ],
)
def test_mistakes_are_told_in_json(
    client: FlaskClient, path: str, values: object, status: int, error: str
) -> None:
    answer = client.post(path, json=values)
    assert answer.status_code == status
    assert answer.json
    assert answer.json["error"] == error


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"prompt": "\xff"}', b"[" * 100_000, b'{"number": ' + b"1" * 5000 + b"}"]
)
def test_what_is_no_json_is_told_in_json(client: FlaskClient, body: bytes) -> None:
    for path in ("/ask", "/edit", "/undo"):
        answer = client.post(path, data=body, content_type="application/json")
        assert answer.status_code == 400
        assert answer.json
        assert answer.json["message"]


def test_lines_come_as_a_text_or_a_list(client: FlaskClient, model: Editable) -> None:
    prompt, target = corrections_for(model.face)[0]
    asked = {"prompt": prompt, "target": target, "subject": None, "rephrases": ["Say it", ""]}
    made = client.post("/edit", json=asked).json
    assert made
    assert [answer["prompt"] for answer in made["answers"]] == [prompt, "Say it"]


def test_an_edit_that_another_process_undid_is_told_of(folder: Path, tmp_path: Path) -> None:
    model = Editable.load(folder, journal=tmp_path / "journal", guard=Guard(action="off"))
    model.edit(corrections_for(model.face)[0], **FT)
    Journal(tmp_path / "journal").undo([1])
    with serving.make_app(model, HOW).test_client() as client:
        answer = client.post("/undo", json={"number": 1})
    assert answer.status_code == 400
    assert answer.json
    assert "an edit that was undone already" in answer.json["message"]


def test_other_sites_cannot_use_it(client: FlaskClient) -> None:
    """Neither by a name that points here, nor by a form that a page elsewhere sends."""
    assert client.get("/state", headers={"Host": "evil.example"}).status_code == 403
    assert client.post("/undo", data="{}", content_type="text/plain").status_code == 415
    assert client.get("/state", headers={"Host": "localhost:8765"}).status_code == 200


def test_the_page_asks_for_nothing_elsewhere(client: FlaskClient) -> None:
    answer = client.get("/")
    assert not re.findall(r"(?:https?:)?//[\w.]+", answer.text)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy)
    assert nonce
    assert f'<script nonce="{nonce.group(1)}">' in answer.text
    assert "NONCE" not in answer.text


def test_a_taken_port_is_told_before_the_model_is_loaded(caplog: pytest.LogCaptureFixture) -> None:
    with serving.bound(0) as taken:
        port = taken.getsockname()[1]
        assert taken.getsockname()[0] == "127.0.0.1"
        with pytest.raises(PortError, match=rf"127\.0\.0\.1:{port}.*--port"), serving.bound(port):
            pass
        assert main(["serve", "./no model", "--port", str(port)]) == 1
    assert caplog.records[-1].getMessage().startswith("PortError")
    with pytest.raises(PortError), serving.bound(70_000):
        pass


@pytest.fixture
def address(model: Editable) -> Iterator[str]:
    """The page, served."""
    prompt, target = (json.dumps(text.strip()) for text in corrections_for(model.face)[0])
    with serving.bound(0) as listening:
        server = serving.make_server(model, listening, HOW)
        user = USER.replace("PROMPT", prompt).replace("TARGET", target)
        server.app.add_url_rule("/user", "user", lambda: user)  # type: ignore[attr-defined]
        thread = threading.Thread(target=serving.run, args=(server,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def test_it_serves_on_this_machine_alone(address: str) -> None:
    port = int(address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /state HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in connection.recv(4096)


def test_a_user_at_work_in_a_browser(address: str, tmp_path: Path) -> None:
    if BROWSER is None:
        pytest.skip("no browser is installed")
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}", "--no-first-run", "--dump-dom",
            "--virtual-time-budget=60000", f"{address}/user",
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    if not title and not done.stdout:
        pytest.skip("the installed browser does not run here")
    assert title, done.stderr[-1500:]
    seen = json.loads(html.unescape(title.group(1)))
    assert "untouched" in seen["asked"]
    assert all(word in seen["result"] for word in ("edit", "rephrase", "neighbour", "right"))
    assert seen["message"].startswith("Edit 1 took")
    assert "Undo" in seen["edits"]
    assert seen["width"][1] <= seen["width"][0] == 390
    assert seen["undone"] == "Edit 1 is undone."
    assert seen["mistake"].startswith("DataError")
    complaints = re.findall(r"^.*CONSOLE.*$", done.stderr, re.MULTILINE)
    assert all("400 (BAD REQUEST)" in line for line in complaints)  # the mistake alone
