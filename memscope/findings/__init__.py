"""What deserves a user's attention in a trace: found by fixed rules, each with its evidence.

A file is one subject; what shows over the steps of a program is in ``over_steps``.

Other folders import:

``find``      Everything worth saying about a device, by fixed rules: the same trace always gives the same
              findings
``finding``   A finding: what was found, how bad it is, and the numbers that prove it
``joined``    Outputs that a loop joins piece by piece
``returned``  What the fix of a finding returns: how much lower reserved memory peaks in a replay with it
"""
