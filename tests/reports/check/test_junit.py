"""What checks found as JUnit's XML."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from memscope.errors import UsageError
from memscope.reports.check.junit import junit_xml, write_junit
from tests.reports.check.gates import kept, passed, untold


def test_a_suite_for_each_check_and_a_case_for_each_limit(tmp_path: Path) -> None:
    gates = [passed(), kept(), untold()]
    root = ET.fromstring(junit_xml(gates))
    suites = root.findall("testsuite")
    counts = [(s.get("name"), s.get("tests"), s.get("failures"), s.get("errors")) for s in suites]
    assert counts == [("run", "1", "1", "0"), ("kept", "2", "0", "0"), ("untold", "1", "0", "1")]
    failure = suites[0].find("testcase/failure")
    assert failure is not None
    assert "10.0 MiB over its limit" in failure.get("message", "")
    assert "train.py:7 forward" in (failure.text or "")
    path = write_junit(gates, tmp_path / "junit.xml")
    assert path.read_text() == junit_xml(gates)
    with pytest.raises(UsageError):
        write_junit(gates, path)


def test_a_name_that_is_no_xml_is_made_some() -> None:
    root = ET.fromstring(junit_xml([untold("<a & \x00\x1b b>")]))
    suite = root.find("testsuite")
    assert suite is not None
    assert suite.get("name") == "<a & �� b>"
