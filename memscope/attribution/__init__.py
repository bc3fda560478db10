"""Whose bytes they are: categories, the rules that decide them, and the ledger that closes.

Other folders import:

``attribution``   The category and the owner of every allocation, and what decided it
``call_tree``     Trees of weighted nodes: the calls that hold memory at a moment, and the modules that own it
``driver_usage``  What a device holds beyond PyTorch's reserved memory, row by row, summing exactly to what
                  the device says is used
``grouping``      What the allocations of a moment can be grouped by, and the group that each is in
``ledger``        The ledger: one moment's bytes, row by row, summing exactly to what is reserved
``rule``          What a rule is, one line of the table that tells categories without identities, and which
                  allocations it fits
``rule_file``     The user's own rules: a TOML file of ``[[rule]]`` tables, tried before memscope's own
``rule_table``    The rules themselves, in order. ``RULES`` read stacks; ``CONTEXT_RULES`` come after them and
                  can do without a stack
``sites``         Where allocations come from: the user's line of code in a stack, and the module in an
                  owner's name
``steps``         Where the steps of a program end: from its marks, its optimizer, its backward passes, or
                  from what repeats
"""
