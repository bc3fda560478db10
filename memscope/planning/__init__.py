"""Will it fit: models built from their configuration, dry-run, and set beside cards.

Other folders import:

``as_json``   The object of ``memscope estimate --json``
``as_text``   The same as text for a terminal
``estimate``  What a model takes, and which cards it fits
``script``    The largest value of a script's own argument that fits a card
``plan``      What is asked: a model, what is done with it, and how
``solve``     The most, or the least, that fits
"""
