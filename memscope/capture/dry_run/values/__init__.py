"""The values of a dry run: which are known, and what is answered where they are not.

Other folders import:

``guards``  Which answer lets a program go on, where it asks an unknown value whether to give up
``known``   Values that a dry run knows: small tensors made of known numbers only are computed for real
            beside the fake ones
``shapes``  Results whose shape depends on values that a dry run does not have: the largest that there can be,
            or what is known
"""
