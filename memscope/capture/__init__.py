"""Recording. torch, transformers and pynvml are imported here, inside functions, and nowhere below.

Other folders take ``recorder`` (``memscope.record``), ``tagging`` (``memscope.tag``), ``script`` and ``trigger``
(programs run under a recording), ``environment`` and ``doctor``. A recording is a backend, ``dry_run`` or ``cuda``;
both follow the program with the same ``watcher``, which tells what it finds to the backend's own sink.
"""
