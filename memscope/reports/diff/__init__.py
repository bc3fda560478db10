"""What two moments hold differently: text, JSON, HTML.

Other folders import:

``json``  The object of ``memscope diff --json``
``page``  A difference as one HTML file that needs nothing else
``text``  A difference as text for a terminal
"""
