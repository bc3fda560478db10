"""The cache keeps what was used last, whatever the order of questions, as a list that is searched does."""

from __future__ import annotations

import random

import pytest

from memscope.recently_used import RecentlyUsed


def test_the_one_used_longest_ago_goes_first() -> None:
    gone: list[tuple[str, int]] = []
    cache: RecentlyUsed[str, int] = RecentlyUsed(2, lambda key, value: gone.append((key, value)))
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert gone == [("b", 2)]
    assert list(cache) == ["a", "c"]
    assert "b" not in cache
    assert cache.get("b") is None


def test_to_ask_or_to_list_is_not_to_use() -> None:
    cache: RecentlyUsed[str, int] = RecentlyUsed(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert "a" in cache
    assert cache.items() == [("a", 1), ("b", 2)]
    cache.put("c", 3)
    assert list(cache) == ["b", "c"]


def test_a_value_is_made_once_while_it_is_kept_and_an_error_never() -> None:
    made: list[str] = []
    cache: RecentlyUsed[str, str | None] = RecentlyUsed(2)

    def make(key: str) -> str | None:
        made.append(key)
        return None

    assert cache.get_or_make("a", lambda: make("a")) is None
    assert cache.get_or_make("a", lambda: make("a")) is None
    assert made == ["a"]
    with pytest.raises(ZeroDivisionError):
        cache.get_or_make("b", lambda: str(1 // 0))
    assert "b" not in cache


def test_making_one_value_may_put_others() -> None:
    cache: RecentlyUsed[int, int] = RecentlyUsed(2)

    def fibonacci(n: int) -> int:
        return n if n < 2 else cache.get_or_make(n - 1, lambda: fibonacci(n - 1)) + fibonacci(n - 2)

    assert cache.get_or_make(10, lambda: fibonacci(10)) == 55
    assert list(cache)[-1] == 10
    assert len(cache) == 2


@pytest.mark.parametrize("seed", range(20))
def test_it_answers_as_a_list_that_is_searched_does(seed: int) -> None:
    rng = random.Random(seed)
    n_kept = rng.randrange(1, 5)
    cache: RecentlyUsed[int, int] = RecentlyUsed(n_kept)
    naive: list[tuple[int, int]] = []
    for turn in range(200):
        key = rng.randrange(7)
        known = next((pair for pair in naive if pair[0] == key), None)
        if rng.random() < 0.5:
            assert cache.get(key) == (known[1] if known else None)
            if known:
                naive.remove(known)
                naive.append(known)
        else:
            cache.put(key, turn)
            naive = [*(pair for pair in naive if pair[0] != key), (key, turn)][-n_kept:]
        assert cache.items() == naive
