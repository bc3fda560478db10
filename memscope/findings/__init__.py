"""What deserves a user's attention in a trace: found by fixed rules, each with its evidence.

Other folders take ``find.find_findings`` and what it returns, from ``finding``. A file is one subject; what a finding
shows of its allocations is in ``shown``, and what every step leaves behind in ``patterns``.
"""
