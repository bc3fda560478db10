"""Files that the browser sends: bounded, named plainly, kept for a while."""

from __future__ import annotations

import pytest
from memscope_dashboard.kv_uploads import Uploads

from memscope.errors import UsageError
from tests.dashboard.pages import PLAIN, sent


def test_what_is_sent_is_bounded_and_named_plainly() -> None:
    uploads = Uploads()
    ids = [uploads.add_requests(f"{i}.csv", sent(PLAIN + f"{i + 2},1,1\n".encode())) for i in range(12)]
    assert len(uploads.requests(ids[-1])) == 4
    with pytest.raises(UsageError, match=r"0\.csv is not kept any longer"):
        uploads.requests(ids[0])
    for name in ("", "..", "a\x00b/../../c", "x" * 500):
        assert len(uploads.requests(uploads.add_requests(name, sent(PLAIN)))) == 3
    for broken in ("no base64!", sent(b"\x1f\x8bnothing")):
        with pytest.raises(Exception, match=r"^r\.csv"):
            uploads.add_requests("r.csv", broken)
