"""What shows over the steps of a program: what each leaves behind, what no step uses any more.

Other folders import:

``held_late``  Memory that is still held long after the last step that made such memory
``leaks``      Leaks: places that keep more after every step
``patterns``   What each place in the program leaves behind at the end of every step
``within``     Which steps are judged, and whether anything can be said of them
"""
