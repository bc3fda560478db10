"""A static plan made with all lifetimes known in advance, and the proof that it is sound.

Other folders import:

``plan``  A static plan made with all lifetimes known in advance: what a planned pool would need for the same
          run
"""
