"""What checks found as JUnit's XML."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from memscope.errors import UsageError
from memscope.reports.check.junit import junit_xml, write_junit
from tests.reports.check.gates import grown, kept, passed, unjudged, untold


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


def test_what_holds_nothing_of_the_excess_is_not_listed() -> None:
    text = ET.fromstring(junit_xml([grown()])).findtext("testsuite/testcase/failure") or ""
    heading, *lines = text.splitlines()
    assert heading == "What grew since the baseline"
    assert [line.split("  ")[0] for line in lines] == ["+8.0 MiB", "+2.0 MiB"]
    text = ET.fromstring(junit_xml([passed()])).findtext("testsuite/testcase/failure") or ""
    assert "\n0 B" not in text
    assert "rounding" not in text


def test_a_check_that_cannot_be_made_is_an_error_of_its_own() -> None:
    suites = ET.fromstring(junit_xml([kept(), unjudged()])).findall("testsuite")
    assert [(s.get("tests"), s.get("failures"), s.get("errors")) for s in suites] == [("2", "0", "0"), ("1", "0", "1")]
    error = suites[1].find("testcase/error")
    assert error is not None
    assert "gone.memscope: cannot be read" in error.get("message", "")
