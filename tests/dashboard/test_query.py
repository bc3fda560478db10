"""What the user looks at: an address and the moment that it means."""

from __future__ import annotations

import pytest
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

from memscope.errors import UsageError
from tests.oracles import ORACLE, needs_shared


@needs_shared
def test_the_start_of_a_later_device_is_a_moment_too() -> None:
    name = "two_gpus.pickle.gz"
    store = TraceStore([ORACLE / "torch-2.11.0" / name])
    second = store.analysis(name).trace.devices[1]
    assert store.analysis(name).device(second).lifetimes.first_event > 0
    assert Query(name, second, -1).resolved(store) == Query(name, second, -1)
    before = store.analysis(name).device(second).lifetimes.first_event - 1
    assert Query(name, second, before).resolved(store) == Query(name, second, -1)
    store.close()


def test_an_address_comes_back_as_the_same_query(store: TraceStore) -> None:
    query = Query("train.memscope", 0, 17)
    assert Query.from_search(query.search(), store) == query
    assert Query.from_data(query.data()) == query


def test_an_empty_or_broken_address_leads_to_the_first_trace_at_its_peak(store: TraceStore) -> None:
    peak = store.analysis("train.memscope").peak(0).event
    for search in (None, "", "?device=x&event=banana", "?device=7", "?event=99999999"):
        assert Query.from_search(search, store).resolved(store) == Query("train.memscope", 0, peak)


def test_the_start_is_a_moment(store: TraceStore) -> None:
    assert Query("train.memscope", 0, -1).resolved(store).event == -1
    assert Query("train.memscope", 0, -1).moment(store).allocated_bytes == 0


def test_no_moment_is_an_error_in_words(store: TraceStore) -> None:
    with pytest.raises(UsageError, match="no moment"):
        Query("train.memscope").moment(store)
