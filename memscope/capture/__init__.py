"""Recording. torch, transformers and pynvml are imported here, inside functions, and nowhere below.

A recording is a backend, ``dry_run`` or ``cuda``; both follow the program with the same ``watcher``, which tells what
it finds to the backend's own sink.

Other folders import:

``doctor``       What this machine can record, and what is in the way: every check asks the real thing
``environment``  What a recording takes from its environment: settings in variables, and the release of
                 PyTorch
``keeping``      What a dry run has recorded so far, kept on disk while the program runs, so that one that is
                 killed loses a moment
``kv_caches``    What is in a key/value cache: the tensors of its layers, how each keeps its tokens, how many
                 it has taken in
``oom``          Out of memory on CUDA: being told at the very moment, and saying afterwards where the trace
                 is
``ownership``    Whose memory is: which claim is the strongest, what a tag means, what parts of a model are
                 called
``patches``      Changes to a module's or class's attributes that are undone, all of them, whatever happens
``recorder``     ``memscope.record``: recording from inside a program
``script``       Running a user's script or module as ``__main__``, unchanged, while it is recorded
``stacks``       Python stacks of a recording under way: walked from the live frames, interned as they are
                 seen
``tagging``      ``memscope.tag`` and ``memscope.register_kv_cache``: a program says whose its memory is
``trigger``      Switching a recording on and off in a running program with a signal: ``kill -USR2 PID``
``watcher``      Follows a program from the outside: modules that run, backward passes, optimizer steps,
                 caches; what belongs to them
"""
