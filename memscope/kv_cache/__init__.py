"""What a recorded key/value cache holds and wastes: its tokens, unused tails, and the copies that it grows by.

Below the lens stand, each on those before: ``_parts``, ``series``.

Other folders import:

``alternatives``  What growing by copying costs: the program's requests replayed with the cache's tensors
                  allocated otherwise
``lens``          What a device's key/value cache held at any moment, layer by layer and cache by cache, and
                  how it grew
``series``        What of a key/value cache holds tokens, from what was recorded of layers and lengths; and
                  its bytes over events
"""
