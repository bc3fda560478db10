"""Requests as pages send them, with anything at all in the place of what pages send."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from dash import Dash

HOSTILE_TEXT = "<img src=x onerror=alert(1)></script>\x1b[31m\u202e\0"
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 10**30, -(10**30), 1.5, float("nan"), float("inf")),
    *("", "x", HOSTILE_TEXT, "A" * 10_000, "../../etc/passwd", "?trace=x&device=0&event=-5"),
    *([], {}, [None], [[]], {"a": 1}, [{}], [{"x": None}], {"trace": 1}, {"trace": None, "device": "x", "event": []}),
    *(
        {"trace": "train.memscope", "device": 0, "event": 10**20},
        {"trace": "train.memscope", "device": -1, "event": -9},
    ),
    *({"trace": "train.memscope", "device": 0, "event": 3}, {"points": [{"x": None}]}, {"points": 7}),
)


def post_of(app: Dash, output: str, rng: random.Random) -> dict[str, Any]:
    """The request for an output, each of its values anything."""
    callback = app.callback_map[output]

    def filled(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"id": one["id"], "property": one["property"], "value": rng.choice(VALUES)} for one in entries]

    outputs = [
        {"id": one.rpartition(".")[0], "property": one.rpartition(".")[2].split("@")[0]}
        for one in output.strip(".").split("...")
    ]
    inputs = filled(callback["inputs"])
    return {
        "output": output,
        "outputs": outputs if output.startswith("..") else outputs[0],
        "inputs": inputs,
        "state": filled(callback.get("state", [])),
        "changedPropIds": [f"{one['id']}.{one['property']}" for one in rng.sample(inputs, min(1, len(inputs)))],
    }


def hostile_posts(app: Dash, n_posts: int, seed: int = 1) -> Iterator[bytes]:
    """Bodies of requests; two of three have the form of a page's."""
    rng = random.Random(seed)
    outputs = sorted(app.callback_map)
    for _ in range(n_posts):
        post: Any = post_of(app, rng.choice(outputs), rng)
        kind = rng.random()
        if kind < 0.2:
            post[rng.choice(sorted(post))] = rng.choice(VALUES)
        elif kind < 0.27:
            del post[rng.choice(sorted(post))]
        elif kind < 0.3:
            yield rng.choice(
                (b"", b"{", b"[" * 50_000, b"\xff\xfe", b"null", b"[]", b'"x"', b"1e999", b'{"output": 1}')
            )
            continue
        elif kind < 0.33 and post["inputs"]:
            post["inputs"][0] = rng.choice(VALUES)
        yield json.dumps(post).encode("utf-8", "surrogatepass")
