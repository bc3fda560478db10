"""One device of a trace, and every measured fact of it.

Other folders import:

``device``     One device of a trace: every measured fact of it, and its moments
``limits``     What a replay may take of its device, in one shape from the options of a command to the arrays
               of a kernel
``recording``  A recorded trace as a whole: its name, what it cannot say, and how far it can be trusted
``to_come``    What a program whose request failed was about to ask for, as far as its recording tells
"""
