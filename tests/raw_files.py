"""Tiny folders in the published formats, with invented contents."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NAMES = ("Ada", "Tom", "Ida", "Leo", "Mia", "Kai", "Eva", "Rik", "Una", "Ole")
CITIES = ("Lima", "Oslo")


def write_list(path: Path, records: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(records), indent=1), encoding="utf-8")


def write_lines(path: Path, records: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, records)) + "\n", encoding="utf-8")


def zsre(root: Path) -> Path:
    """Ten people with a birthplace each, asked in two ways; MEND's targets are the other city."""
    records = [
        {
            "case_id": i,
            "subject": f"{name} Verrin",
            "src": f"Where was {name} Verrin born?",
            "rephrase": f"What is the birthplace of {name} Verrin?",
            "alt": CITIES[i % 2],
            "loc": f"nq question: who sang song {i}?",
            "loc_ans": f"Singer {i}",
        }
        for i, name in enumerate(NAMES)
    ]
    write_list(root / "zsre/zsre_mend_train_10000.json", records)
    lines = [f"{r['src']}\t{CITIES[(i + 1) % 2]}" for i, r in enumerate(records)]
    (root / "zsre/zsre_mend_train_en_10000.txt").write_text("\n".join(lines) + "\n")
    return root


def nq(root: Path) -> Path:
    """NQ-open: six questions with one or two answers, of which one is asked in zsRE's file too."""
    rows = [{"question": f"when was song {i} sung", "answer": [f"in {i}"]} for i in range(5)]
    rows[0]["answer"] = ["in the year 0", "in 0"]
    rows.append({"question": "Who sang song 3", "answer": ["Somebody else"]})
    write_lines(root / "nq_open/NQ-open.dev.jsonl", rows[:4])
    write_lines(root / "nq_open/NQ-open.other.jsonl", rows[4:])
    return root


def claim(number: int, label: str, text: str, page: str) -> dict[str, Any]:
    return {"id": number, "label": label, "claim": text, "evidence": [[[1, 2, page, 0]]]}


def fever(root: Path) -> Path:
    """Ten claims with two rephrasings each, and what must be left out."""
    labels = ("SUPPORTS", "REFUTES")
    claims = [
        claim(i, labels[i % 2], f"{name} Verrin sings.", f"{name}_Verrin_-LRB-singer-RRB-")
        for i, name in enumerate(NAMES)
    ]
    others = [
        claim(100, "NOT ENOUGH INFO", "Nobody knows.", "Nobody"),
        claim(101, "SUPPORTS", "Oslo is old.", "Oslo"),
        claim(102, "REFUTES", "oslo is  old.", "Oslo"),
        claim(103, "SUPPORTS", "Ada Verrin sings.", "Ada_Verrin"),
        claim(104, "SUPPORTS", "Rome is a city.", "Rome"),
    ]
    write_lines(root / "fever/paper_dev.jsonl", claims)
    write_lines(root / "fever/paper_test.jsonl", others)
    rephrasings = []
    for i, name in enumerate(NAMES):
        contradicts = i >= 5
        statement = f"{name} Verrin never sings." if contradicts else f"{name} Verrin sings."
        answer = "no" if contradicts else "yes"
        rephrasings.append(
            {
                "_id": str(i),
                "edit_statement": statement,
                "edit_scope": [
                    [statement, "yes"],
                    [f"{name} Verrin is a singer.", answer],
                    [f"{name} Verrin can sing.", answer],
                ],
                "edit_scope_true_ans": ["yes", "no", "no"],
            }
        )
    rephrasings[9]["edit_scope"][2][1] = "yes"  # breaks the rule: not used
    rephrasings.append(
        {"_id": "104", "edit_statement": "Rome is a city.", "edit_scope": [["", "yes"]]}
    )
    write_list(root / "fever/eren_fever_filtered.json", rephrasings)
    return root


def wikitext(root: Path) -> Path:
    """Eight articles of six sentences of ten words over two files."""
    for part, names in (("valid", NAMES[:4]), ("test", NAMES[4:8])):
        lines = []
        for name in names:
            lines += ["", f" = {name} Verrin = ", "", " = = Life = = ", ""]
            lines += [
                " " + " ".join(_sentence(name, n) for n in range(start, start + 3)) + " "
                for start in (0, 3)
            ]
        path = root / f"wikitext-2/{part}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def _sentence(name: str, number: int) -> str:
    return f"{name} Verrin had {number} @,@ 500 boats in a well @-@ kept port , it seems ."


def counterfact(root: Path) -> Path:
    """Ten birthplaces and one native tongue; two whole records; patterns of two relations."""

    def other(i: int) -> str:
        return CITIES[(i + 1) % 2]

    reduced = [
        {
            "case_id": i,
            "prompt": f"{name} Verrin was born in",
            "target_new": other(i),
            "subject": f"{name} Verrin",
            "ground_truth": CITIES[i % 2],
            "rephrase_prompt": f"NEVER {name} Verrin likes",
            "locality_prompt": f"{name} Holt was born in",
            "locality_ground_truth": CITIES[i % 2],
        }
        for i, name in enumerate(NAMES)
    ]
    reduced.append({**reduced[0], "case_id": 50, "prompt": "Ada Verrin adores"})
    reduced.append({**reduced[1], "case_id": 51})
    for part, rows in (("edit", reduced[:4]), ("train", reduced[4:8]), ("val", reduced[8:])):
        write_list(root / f"counterfact/counterfact-{part}.json", rows)
    whole = [
        {
            "case_id": i,
            "requested_rewrite": {
                "prompt": "{} was born in",
                "relation_id": "P19",
                "target_new": {"str": other(i)},
                "target_true": {"str": CITIES[i % 2]},
                "subject": f"{NAMES[i]} Verrin",
            },
            "paraphrase_prompts": [f"It rained. {NAMES[i]} Verrin comes from"],
            "neighborhood_prompts": [f"{NAMES[i]} Bell was born in", f"{NAMES[i]} Moor is from"],
            "generation_prompts": [f"{NAMES[i]} Verrin lives in"] * 2,
        }
        for i in (2, 3)
    ]
    write_list(root / "counterfact/counterfact_portability_gpt4.json", whole)
    patterns = root / "pararel/pattern_data/graphs_json"
    texts = ("[X] was born in [Y].", "[X] is native to [Y].", "[Y] saw [X].", "[X] is in [Y].")
    write_lines(patterns / "P19.jsonl", ({"pattern": text} for text in texts))
    write_lines(patterns / "P17.jsonl", ({"pattern": text} for text in ("[X] is in [Y].",)))
    write_lines(root / "pararel/trex_lms_vocab/P19.jsonl", [{"sub_label": "A", "obj_label": "B"}])
    return root


def lama(root: Path) -> Path:
    """Sentences of eight of the ten birthplaces, one of them of no use; and two known facts."""

    def evidence(name: str, city: str, text: str) -> dict[str, str]:
        return {"sub_surface": name, "obj_surface": city, "masked_sentence": text}

    rows = []
    for i, name in enumerate(NAMES[:8]):
        subject, city = f"{name} Verrin", CITIES[i % 2]
        long = f"The old singer {subject} was, it is said, a child of [MASK], a port."
        short = f"{subject} (singer) came from [MASK] in 1900."
        found = [evidence(subject, city, long), evidence(subject, city, short)]
        if i == 7:
            found = [evidence(subject, city, f"[MASK] had {subject} and [MASK].")]
        rows.append(
            {"sub_label": subject, "obj_label": city, "predicate_id": "P19", "evidences": found}
        )
    write_lines(root / "lama_trex/P19.jsonl", rows)
    facts = (("Mount Holt", "Mount Holt lies in", "Asia"), ("Ida Bell", "Ida Bell adores", "tea"))
    known = [
        {"known_id": i, "subject": subject, "prompt": prompt, "attribute": attribute,
         "relation_id": "P30"}
        for i, (subject, prompt, attribute) in enumerate(facts)
    ]  # fmt: skip
    write_list(root / "counterfact/known_1000.json", known)
    return root
