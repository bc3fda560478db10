"""Flame graphs: the calls or the modules behind a moment's bytes, or behind what two moments do not share.

Other folders import:

``difference``  The flame graph of a difference: one graph of two moments, as wide as the second, coloured by
                what grew
``flame``       The flame graph: the calls or the modules that hold a moment's bytes as boxes, no byte lost,
                and their picture
"""
