"""A page to try edits on, for a browser on this machine: it asks for nothing from elsewhere.

Bound to 127.0.0.1. Another site open in the same browser can neither read it nor act through it:
requests must name this host, and what changes anything must be JSON from this very page.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from flask import Flask, Response, abort, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer
from werkzeug.serving import make_server as _make_server

from pipeline.editable import Correction, Editable
from pipeline.editable.failures import PortError
from pipeline.editable.guard import as_dict
from pipeline.editable.texts import encodable, lines
from pipeline.editable.work import Edit
from pipeline.errors import DataError, ErrataError

HOST = "127.0.0.1"
_PAGE = Path(__file__).with_name("page.html")
_NONCE = "NONCE"  # where the page has its own


@contextmanager
def bound(port: int) -> Iterator[socket.socket]:
    """A socket on this machine's own address. Raises PortError where the port is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((HOST, port))
            found.listen(16)
        except (OSError, OverflowError) as error:
            raise PortError(
                expected=f"to serve on {HOST}:{port}",
                found=str(error),
                remedy="Another program has it, perhaps another page: give a free --port, or 0 "
                "for any.",
            ) from error
        yield found


def make_server(
    model: Editable, listening: socket.socket, how: Mapping[str, Any]
) -> BaseWSGIServer:
    """A server on a bound socket. Browsers hold idle connections, so each has a thread."""
    port = listening.getsockname()[1]
    app = make_app(model, how)
    return _make_server(HOST, port, app, threaded=True, fd=listening.fileno())


def run(server: BaseWSGIServer) -> None:
    """Serve until interrupted."""
    with suppress(KeyboardInterrupt):
        server.serve_forever()


def make_app(model: Editable, how: Mapping[str, Any] | None = None) -> Flask:
    """The page and what it calls.

    Args:
        how: which editor makes edits, as `Editable.edit` takes it.
    """
    app = Flask(__name__)
    _refuse_strangers(app)
    _tell_mistakes(app)
    app.add_url_rule("/", "page", _page)
    _add_actions(app, model, how or {})
    return app


def _refuse_strangers(app: Flask) -> None:
    @app.before_request
    def only_this_machine() -> None:
        host = request.host.partition(":")[0]
        if host not in (HOST, "localhost"):
            abort(403, "This page is for this machine alone.")
        if request.method == "POST" and not request.is_json:
            abort(415, "Send JSON.")


def _tell_mistakes(app: Flask) -> None:
    @app.errorhandler(ErrataError)
    def mistaken(error: ErrataError) -> tuple[Response, int]:
        return jsonify(error=type(error).__name__, message=str(error)), 400

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> tuple[Response, int]:
        return jsonify(error=error.name, message=error.description), error.code or 500


def _page() -> Response:
    nonce = secrets.token_urlsafe(16)
    answer = Response(_PAGE.read_text(encoding="utf-8").replace(_NONCE, nonce))
    answer.headers["Content-Security-Policy"] = (
        f"default-src 'none'; img-src data:; connect-src 'self'; script-src 'nonce-{nonce}'; "
        f"style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
    return answer


def _add_actions(app: Flask, model: Editable, how: Mapping[str, Any]) -> None:
    turns = Lock()  # one at a time: edits are hooks on one model

    @app.get("/state")
    def state() -> Response:
        with turns:
            return jsonify(_state(model))

    @app.post("/ask")
    def ask() -> Response:
        with turns:
            (found,) = model.compare(_text(_json(), "prompt"))
        return jsonify(asdict(found) | {"changed": found.changed})

    @app.post("/edit")
    def edit() -> Response:
        values = _json()
        correction = Correction(
            prompt=_text(values, "prompt"),
            target=_text(values, "target"),
            subject=_text(values, "subject", empty=True),
            rephrases=_lines(values, "rephrases"),
            neighbours=_lines(values, "neighbours"),
        )
        with turns:
            (made,) = model.edit(correction, **how)
            return jsonify(_shown(made) | {"state": _state(model)})

    @app.post("/undo")
    def undo() -> Response:
        number = _json().get("number")
        if type(number) is not int:
            raise DataError(
                expected="the number of an edit", found=repr(number), remedy="Give a whole number."
            )
        with turns:
            model.undo(number)
            return jsonify(_state(model))


def _json() -> dict[str, Any]:
    try:
        values = request.get_json()
    except RecursionError:
        abort(400, "Send JSON that is less deep.")
    if not isinstance(values, dict):
        abort(400, "Send a JSON object.")
    return values


def _text(values: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    """A field; where it may be empty, it may be missing too."""
    value = values.get(name)
    if empty and value is None:
        return ""
    if not isinstance(value, str) or not (empty or value.strip()):
        raise DataError(
            expected=f"text in {name!r}", found=repr(value)[:80], remedy="Write something."
        )
    return encodable(value, f"the field {name!r}")


def _lines(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The lines of a field, which may be a list of them."""
    value = values.get(name)
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    text = _text({name: value}, name, empty=True)
    return tuple(line.strip() for _, line in lines(text))


def _state(model: Editable) -> dict[str, Any]:
    return {
        "model": model.source,
        "kind": model.face.kind,
        "edits": [_shown(edit) for edit in model.edits],
    }


def _shown(edit: Edit) -> dict[str, Any]:
    answers = [asdict(answer) | {"right": answer.right} for answer in edit.answers]
    health = as_dict(edit.health) if edit.health else None
    return {"number": edit.number, "alg": edit.alg, "seconds": edit.seconds, "answers": answers,
            "right": edit.right, "health": health, "overrode": edit.overrode}  # fmt: skip
