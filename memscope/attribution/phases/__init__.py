"""What the program was doing when, and how allocations live beside that.

Other folders import:

``lives``   How allocations live: when each was made and freed, beside the phases of the program
``phases``  What the program was doing at each event, found from the stacks
"""
