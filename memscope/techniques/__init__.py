"""What to change in a program: techniques that transform what it asks for, replayed through the exact allocator.

Other folders import:

``course``     The course of a changed program's memory over the run that it was taken from
``fit``        The cheapest techniques with which a program fits a card
``names``      What names of owners say
``passes``     The training passes of a device
``program``    A recorded program as rows that a technique can change
``registry``   The techniques that there are, by name
``through``    The techniques with which a request that ended a run would have been served
``technique``  What a technique is: a change of a program, with its cost and its proof
``whatif``     What techniques would have made of a recorded program
"""
