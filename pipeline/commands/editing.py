"""Commands that change a model of one's own, or ask it: edit, ask, compare, serve."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.common import (
    Commands,
    command,
    of_a_model,
    open_editable,
    refuse_idle,
    settings,
    show,
    show_json,
    table,
    with_device,
    with_guard,
)
from pipeline.commands.made import report
from pipeline.errors import DataError, SettingsError

if TYPE_CHECKING:
    from pipeline.editable import Correction, Editable

_LOG = logging.getLogger(__name__)


def add(commands: Commands) -> None:
    """`edit`, `ask`, `compare`, `serve`."""
    shared = [of_a_model(), with_device()]
    edit = command(
        commands,
        "edit",
        _edit,
        "make a model say something else, and see what else changed",
        'errata edit MODEL --prompt "The capital of Verlania is" --target Oslo --set rate=1e-3',
        "errata edit MODEL --requests corrections.jsonl --alg mend --editor fitted/mend",
        "errata edit MODEL --requests corrections.csv --dry-run",
        "errata edit MODEL --requests new.jsonl --alg mend --fit cases.parquet"
        " --set outer.steps=300",
        "",
        "a line of JSON: "
        '{"prompt": "...", "target": "...", "subject": "...", "rephrases": [], "neighbours": []}',
        "a CSV has these names in its first line; several prompts in a cell are separated by |",
        parents=[*shared, with_guard()],
    )
    _edit_arguments(edit)
    for name, run, about in (
        ("ask", _ask, "ask the model with its edits in force"),
        ("compare", _compare, "ask the untouched and the edited model side by side"),
    ):
        asking = command(
            commands, name, run, about, f'errata {name} MODEL "The capital of Verlania is"',
            f"errata {name} MODEL --file prompts.txt --json", parents=shared,
        )  # fmt: skip
        asking.add_argument("prompts", nargs="*", metavar="PROMPT")
        asking.add_argument("--file", type=Path, help="prompts, one on each line")
        asking.add_argument("--tokens", type=int, help="of an answer (10)")
    serve = command(
        commands,
        "serve",
        _serve,
        "a page to try edits on, in a browser on this machine",
        "errata serve MODEL",
        "errata serve MODEL --port 8123 --alg mend --editor fitted/mend",
        parents=[*shared, with_guard()],
    )
    serve.add_argument("--port", type=int, default=8765, help="on 127.0.0.1 (8765)")
    _which_editor(serve)


def _edit_arguments(edit: argparse.ArgumentParser) -> None:
    edit.add_argument("--prompt", help="what is asked")
    edit.add_argument("--target", help="what should follow (true or false of a classifier)")
    edit.add_argument("--subject", default="", help="what it is about, as it stands in the prompt")
    edit.add_argument("--rephrase", action="append", default=[], help="another wording to look at")
    edit.add_argument(
        "--neighbour", action="append", default=[], help="a prompt whose answer should stay"
    )
    edit.add_argument("--requests", type=Path, help="a JSONL or CSV file of corrections")
    edit.add_argument("--together", action="store_true", help="one edit of all, not one each")
    edit.add_argument("--dry-run", action="store_true", help="show what would be; keep nothing")
    _which_editor(edit)


def _which_editor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--alg", default="", help="which editor (ft, or what --editor is)")
    parser.add_argument("--editor", type=Path, help="a folder where it was fitted on this model")
    parser.add_argument("--fit", type=Path, help="training cases (parquet), to fit it on now")
    parser.add_argument(
        "--moments",
        type=Path,
        help="for rome and memit: second moments, or texts (the model's own)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=X", help="a setting of the editor"
    )


def _edit(arguments: argparse.Namespace) -> None:
    asked, how = _asked(arguments), how_of(arguments)
    model = open_editable(arguments)
    if arguments.dry_run:
        with model.temporarily(asked, together=arguments.together, **how) as edits:
            report(arguments, edits)
        return
    with _telling_what_stays(model):
        edits = model.edit(asked, together=arguments.together, **how)
    report(arguments, edits)


@contextmanager
def _telling_what_stays(model: Editable) -> Iterator[None]:
    """Of several edits the first may be made when one fails: the error says so, be it Ctrl-C."""
    try:
        yield
    except BaseException as error:
        if model.made:
            numbers = ", ".join(map(str, model.made))
            error.add_note(f"Made before, and in force: {numbers} (`errata undo` takes them back).")
        raise


def how_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Which editor, as `Editable.edit` takes it."""
    if arguments.editor is not None:
        refuse_idle({"--fit": arguments.fit}, "--editor")
    cases: Sequence[Any] = ()
    if arguments.fit is not None:
        from pipeline.editable.given import cases_of

        cases = cases_of(arguments.fit)  # before the model is opened
    return {
        "alg": arguments.alg,
        "editor": arguments.editor,
        "cases": cases,
        "moments": arguments.moments,
        "settings": settings(arguments.set),
    }


def _asked(arguments: argparse.Namespace) -> tuple[Correction, ...]:
    from pipeline.editable.corrections import Correction, corrections, read

    one = arguments.prompt is not None or arguments.target is not None
    if one == (arguments.requests is not None) or (
        one and (arguments.prompt is None or arguments.target is None)
    ):
        raise DataError(
            expected="either --prompt and --target, or --requests",
            found="both" if one and arguments.requests else "not both of them" if one else "none",
            remedy="`errata edit --help` shows examples.",
        )
    if not one:
        idle = {f"--{name}": vars(arguments)[name] for name in ("subject", "rephrase", "neighbour")}
        refuse_idle(idle, "--requests")
        return read(arguments.requests)
    return corrections(
        Correction(
            prompt=arguments.prompt,
            target=arguments.target,
            subject=arguments.subject,
            rephrases=tuple(arguments.rephrase),
            neighbours=tuple(arguments.neighbour),
        )
    )


def _ask(arguments: argparse.Namespace) -> None:
    prompts = _prompts(arguments)
    said = open_editable(arguments).ask(prompts, arguments.tokens)
    if arguments.json:
        found = zip(prompts, said, strict=True)
        show_json([{"prompt": prompt, "answer": answer} for prompt, answer in found])
        return
    for answer in said:
        show(answer.strip())


def _compare(arguments: argparse.Namespace) -> None:
    prompts = _prompts(arguments)
    found = open_editable(arguments).compare(prompts, arguments.tokens)
    if arguments.json:
        show_json([asdict(answer) | {"changed": answer.changed} for answer in found])
        return
    rows = [[a.prompt, a.before, a.after, "changed" if a.changed else ""] for a in found]
    show(table(("prompt", "before", "after", ""), rows))


def _prompts(arguments: argparse.Namespace) -> list[str]:
    from pipeline.editable.texts import lines, read_text

    prompts = list(arguments.prompts)
    if arguments.file is not None:
        remedy = "Give a text file in UTF-8 with one prompt on each line."
        prompts += [line for _, line in lines(read_text(arguments.file, "prompts", remedy))]
    if not prompts:
        raise DataError(expected="a prompt", found="none", remedy="Give one, or --file.")
    for prompt in prompts:
        if not prompt.strip():
            raise DataError(
                expected="text in every prompt", found=repr(prompt), remedy="Leave it out."
            )
    if arguments.tokens is not None and arguments.tokens < 1:
        raise SettingsError(
            expected="at least one token of an answer",
            found=f"--tokens {arguments.tokens}",
            remedy="Leave it out: 10 are the default.",
        )
    return prompts


def _serve(arguments: argparse.Namespace) -> None:
    from pipeline import serving

    refuse_idle({"--json": arguments.json}, "serve")
    with serving.bound(arguments.port) as socket:  # before the model is loaded: a taken port is
        how = how_of(arguments)  # told at once
        server = serving.make_server(open_editable(arguments), socket, how)
        _LOG.info("http://127.0.0.1:%d shows %s. Ctrl-C ends it.", server.port, arguments.model)
        serving.run(server)
