import json

from memscope.planning.as_json import estimate_json
from memscope.planning.solve import Solved
from tests.planning.models import trained


def test_the_object_has_the_keys_that_scripts_rely_on():
    content = estimate_json(trained())
    assert {"fits", "capacity_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "ledger", "gpus"} <= set(content)
    assert "solved" not in content
    assert [(gpu["name"], gpu["fits"]) for gpu in content["gpus"]] == [("1GiB", True), ("40MiB", False)]
    assert (content["gpu"], content["fits"], content["capacity_bytes"]) == ("1GiB", True, 1 << 30)
    for gpu in content["gpus"]:
        assert (gpu["peak_allocated_bytes"], gpu["peak_reserved_bytes"]) == (
            content["peak_allocated_bytes"],
            content["peak_reserved_bytes"],
        )
    rows = content["ledger"]["rows"]
    assert sum(row["bytes"] for row in rows) == content["ledger"]["total_bytes"]
    json.dumps(content)


def test_what_was_solved_stands_beside_it():
    content = estimate_json(trained(), Solved("batch", 4, True, trained(), 5))
    assert content["solved"] == {"name": "batch", "value": 4, "confirmed": True, "n_runs": 5, "note": None}
