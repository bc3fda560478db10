"""The names of a key/value cache's parts: made at capture, read to tell layers and caches apart."""

from __future__ import annotations

import re
from typing import NamedTuple

_KEPT = r"(?:keys|values)(?: (?:scale|zero|residual))?|indexer keys"
_BESIDE = r"length|window|pending order|indexer (?:positions|length)|(?:conv|recurrent)(?: \d+)? state"
_RECORDED = re.compile(
    rf"(?:cache (?P<cache>\d{{1,9}}) )?(?P<cross>cross )?layer (?P<layer>\d{{1,9}}) (?P<part>{_KEPT}|{_BESIDE})"
)
_LAYER = re.compile(r"(?:\blayers?[ ._\[]?|\bblocks?[ ._\[]|\bh\.|^\[)(?P<layer>\d{1,9})(?!\d)")
_CACHE = re.compile(r"\b(?:cache|request|req|seq|sequence)[ ._#-]?(?P<cache>\d{1,9})\b")
_PART = re.compile(r"\b(?P<part>keys?|values?|k|v)(?:\b|_)")


def is_beside_tokens(part: str) -> bool:
    """Whether a part is a length, a state, or something else that a cache keeps beside its keys and values.

    >>> is_beside_tokens("values scale"), is_beside_tokens("anything"), is_beside_tokens("length")
    (False, False, True)
    """
    return re.fullmatch(_BESIDE, part) is not None


class CachePart(NamedTuple):
    """Which part of which cache; None where the name does not say.

    ``cache_id`` numbers caches (or requests, where a user's own name has their number), ``part`` is what it holds of
    the layer: ``keys``, ``values``, ``keys scale``, … ``is_numbered`` is whether memscope itself numbered the cache.
    """

    cache_id: int | None
    layer: int | None
    part: str | None
    is_cross: bool = False
    is_numbered: bool = False


def cache_label(cache_id: int | None, layer: int, part: str, *, is_cross: bool = False) -> str:
    """Name of a part of a cache.

    >>> cache_label(2, 3, "keys")
    'cache 2 layer 3 keys'
    >>> cache_label(None, 0, "values", is_cross=True)
    'cross layer 0 values'
    """
    cache = "" if cache_id is None else f"cache {cache_id} "
    return f"{cache}{'cross ' if is_cross else ''}layer {layer} {part}"


def read_cache_label(label: str) -> CachePart:
    """What a name says: memscope's own whole, of a user's or an engine's what can be told.

    >>> read_cache_label("cache 2 layer 3 keys scale")
    CachePart(cache_id=2, layer=3, part='keys scale', is_cross=False, is_numbered=True)
    >>> read_cache_label("request 17 model.layers.4.self_attn k_cache")
    CachePart(cache_id=17, layer=4, part='keys', is_cross=False, is_numbered=False)
    >>> read_cache_label("[5]")
    CachePart(cache_id=None, layer=5, part=None, is_cross=False, is_numbered=False)
    """
    own = _RECORDED.fullmatch(label)
    if own is not None:
        cache_id = None if own["cache"] is None else int(own["cache"])
        return CachePart(cache_id, int(own["layer"]), own["part"], own["cross"] is not None, cache_id is not None)
    layer, request, part = _LAYER.search(label), _CACHE.search(label), _PART.search(label)
    return CachePart(
        None if request is None else int(request["cache"]),
        None if layer is None else int(layer["layer"]),
        None if part is None else ("keys" if part["part"].startswith("k") else "values"),
    )
