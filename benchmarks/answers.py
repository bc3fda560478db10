"""What memscope answers about a set of traces, stored, and held against what it answered before.

``python benchmarks/answers.py FOLDER… -o before.json`` stores the ``--json`` of every verb for every trace in the
folders; with ``--against before.json`` it prints each value that differs from the stored ones and exits 1 if any does.
A change of the program that should not change an answer is checked so, on traces of any size and origin.
Without a folder it reads the traces that the project ships.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

VERBS = ("report", "peak", "frag", "oom", "verify", "replay", "tune", "kv")
SUFFIXES = (".memscope", ".pickle", ".pickle.gz", ".pkl", ".pkl.gz", ".html")
SHIPPED = Path(__file__).parents[1] / "traces"
MAX_SHOWN = 20
"""Differences printed for one trace and verb; the rest are counted."""


def traces_in(places: list[Path]) -> dict[str, Path]:
    """The traces in some folders, by a name that does not depend on where the folders are."""
    found: dict[str, Path] = {}
    for place in places:
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        for file in files:
            if file.name.endswith(SUFFIXES):
                found[file.name if place.is_file() else f"{place.name}/{file.relative_to(place)}"] = file
    return found


def answer(verb: str, trace: Path) -> dict[str, Any]:
    """What one verb prints about a trace, with its exit code, as another process would see it."""
    from memscope.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["memscope", verb, str(trace), "--json"]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main()
        code: Any = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = argv
    text = out.getvalue()
    said = err.getvalue().replace(str(trace.parent), "").strip().splitlines()
    return {"exit": code, "said": said, "json": json.loads(text) if text.strip() else None}


def answers_of(trace: Path) -> dict[str, Any]:
    """What every verb answers about a trace."""
    return {verb: answer(verb, trace) for verb in VERBS}


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Every value that differs, named by its place."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            if key not in after:
                yield f"{where}.{key}: gone, was {_short(before[key])}"
            elif key not in before:
                yield f"{where}.{key}: new, {_short(after[key])}"
            else:
                yield from differences(before[key], after[key], f"{where}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{where}[{i}]")
    elif before != after:
        yield f"{where}: was {_short(before)}, is {_short(after)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "…"


def compare(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print what differs between two sets of answers; returns how many verbs of traces do."""
    n_differing = 0
    for trace in [*before, *(name for name in after if name not in before)]:
        if trace not in before or trace not in after:
            print(f"{trace}: {'only now' if trace in after else 'only before'}")
            n_differing += 1
            continue
        for verb in VERBS:
            found = list(differences(before[trace].get(verb), after[trace].get(verb)))
            if found:
                n_differing += 1
                print(f"{trace} {verb}: {len(found)} differ")
                for line in found[:MAX_SHOWN]:
                    print(f"    {line}")
    n_answers = len(after) * len(VERBS)
    print(f"{n_answers - n_differing} of {n_answers} answers about {len(after)} traces are what they were")
    return n_differing


def main() -> None:
    """Ask, store, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", type=Path, default=[SHIPPED], metavar="FOLDER")
    parser.add_argument("-o", "--output", type=Path, help="where to store the answers")
    parser.add_argument("--against", type=Path, help="answers stored before")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="traces at a time")
    options = parser.parse_args()
    traces = traces_in(options.places)
    if not traces:
        parser.error(f"no trace in {', '.join(map(str, options.places))}")
    with ProcessPoolExecutor(options.jobs) as pool:
        asked = dict(zip(traces, pool.map(answers_of, traces.values()), strict=True))
    n_exits = sum(answer["exit"] == 0 for verbs in asked.values() for answer in verbs.values())
    print(f"{len(asked)} traces, {len(asked) * len(VERBS)} answers, {n_exits} with exit code 0")
    if options.output is not None:
        options.output.write_text(json.dumps(asked, indent=1, ensure_ascii=False))
    if options.against is not None:
        raise SystemExit(1 if compare(json.loads(options.against.read_text()), asked) else 0)


if __name__ == "__main__":
    main()
