"""Techniques that change how weights are kept, one a file.

Other folders import:

``quantize``  Matrices in fewer bits
"""
