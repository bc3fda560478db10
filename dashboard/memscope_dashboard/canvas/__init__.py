"""The instrument's server side: a device's allocations as binary columns, for the browser to draw.

===============  ======================================================================================================
``allocations``  The allocations of a range of events, the largest of them, and what the others hold together
``packed``       Columns in one binary answer: a header in JSON, then each column where the header says
``segments``     A device's segments and every event that changes them, for the browser to follow to any moment
``series``       What a device had reserved over a range of events, no peak of it lost
``routes``       Where the browser asks for them
===============  ======================================================================================================
"""
