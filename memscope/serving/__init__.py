"""Key/value caches of serving: what they take, and request traces replayed under several ways to manage them.

Other folders import:

``budget``         What is left of a device for keys and values, line by line
``managers``       The ways to manage key/value memory that a replay knows: one registry
``model_config``   A model's shape, from the keys of a Hugging Face ``config.json``, or of a well-known model
                   by its name
``presets``        Configurations of well-known models: the keys of their ``config.json`` that decide about
                   memory
``question``       One question about serving, "how many requests can I serve?", and everything that is worked
                   out before a replay
``request_files``  Reading request traces: the Azure, BurstGPT and plain CSV files, and Mooncake's JSON lines;
                   ``.gz`` as they are
``requests``       Requests to a serving engine, as columns: read from a file, or made from distributions
``result``         What a replay of requests found
``scheduler``      How an engine forms its steps, and how long each takes: a model of two limits, arithmetic
                   and memory traffic
``shapes``         How many bytes of keys and values a model keeps for each token, layer by layer
``simulate``       Replaying a request trace under one way to manage key/value memory
"""
