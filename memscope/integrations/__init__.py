"""memscope inside other tools. Each is imported by its tool, and imports nothing heavy until it is used.

Other folders import:

``pytest_plugin``  GPU memory of tests: limits, leaks, baselines, and a table at the end
"""
