"""What is said of views and of copies to share.

Other folders import:

``redaction``  What became of the names of a trace that was redacted, as text and as JSON
``views``      Answers of queries, and the views that can be asked, as text for a terminal
"""
