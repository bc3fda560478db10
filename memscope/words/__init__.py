"""Labels, headlines and verdicts: what a result is called and what it says, for every surface.

Other folders import:

``compare``       A difference of two moments in words: what changed, where each moment lies, and what became of what
``driver_usage``  The device's own count in words: the finding, where its numbers come from, and why there are
                  none
``gate``          What a check found in words, for every surface
``headlines``     What a picture says, in a sentence: the titles of views and of the report's sections
``kv_cache``      What a recorded key/value cache holds and wastes, in words; the names and meanings of what
                  its bytes are
``labels``        Text for pictures. Names in a trace come from anyone's program: they are shown as text,
                  never read as markup
``ranks``         A comparison of ranks in words: the finding, who is meant, which rows and steps are shown
``replay``        Replays in words: what follows from a comparison or a search, and how far its numbers can be
                  trusted
``serving``       What replays of requests found, in words; the names and meanings of the parts of key/value
                  memory
``techniques``    Techniques in words: what one costs and how far it is proved, what does not apply, what a plan
                  comes to
"""
