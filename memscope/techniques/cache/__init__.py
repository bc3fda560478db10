"""Techniques that change how keys and values are kept, one a file.

Other folders import:

``fewer_bits``  Keys and values in fewer bits
``static``      Keys and values allocated once
"""
