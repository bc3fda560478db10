"""The compiled core: arrays and scalars in, arrays out; an extension module for each subject, its source in ``core/``.

What a function takes and returns is said in the stub of its module, which is generated from the compiled one.
"""
