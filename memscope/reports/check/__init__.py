"""What came of checks: text, JSON, JUnit's XML, annotations.

Other folders import:

``annotations``  What a check found as GitHub shows it beside the lines of a change
``json``         The objects of ``memscope check --json`` and ``memscope baseline --json``
``junit``        What checks found as JUnit's XML, which CI systems read
``text``         What a check found, and what a baseline holds, as text for a terminal
"""
