import json

from memscope.reports.whatif.json import what_ifs_json
from memscope.techniques.whatif import what_if, what_if_all
from tests.techniques.programs import train


def test_the_object_has_the_keys_that_scripts_rely_on():
    device = train()
    content = what_ifs_json(device.recording, what_if(device, ["optimizer:8bit", "micro-batch:2"]))
    assert {"trace", "baseline", "results"} <= set(content)
    assert set(content["baseline"]) == {"peak_allocated_bytes", "peak_reserved_bytes"}
    for result in (*content["results"], content["together"]):
        assert {
            "technique",
            "peak_allocated_bytes",
            "peak_reserved_bytes",
            "saved_bytes",
            "cost",
            "proof",
            "note",
        } <= set(result)
        assert result["proof"] in ("changed-program", "closed-form", "unproved")
        assert content["baseline"]["peak_reserved_bytes"] - result["peak_reserved_bytes"] == result["saved_bytes"]
    assert [len(result["cost"]) for result in content["results"]] == [1, 1]
    assert content["results"][1]["cost"][0]["n_passes"] == 2
    json.dumps(content)


def test_what_does_not_apply_stands_beside_the_results():
    device = train()
    content = what_ifs_json(device.recording, what_if_all(device))
    assert {entry["technique"] for entry in content["not_applicable"]} >= {"kv:fp8", "static-kv"}
